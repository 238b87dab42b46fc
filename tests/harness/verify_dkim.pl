#!/usr/bin/perl
# Verifies the DKIM signatures of messages with Mail::DKIM, by the keys of a DNS server on 127.0.0.1:
#     verify_dkim.pl PORT FILE...
# Prints a line for each signature, from the top: file, d=, s=, and what was found.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::Resolver;

my $port = shift;
Mail::DKIM::DNS::resolver(
    Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 0, tcp_timeout => 10));
for my $name (@ARGV) {
    open(my $file, '<:raw', $name) or die "$name: $!";
    my $verifier = Mail::DKIM::Verifier->new;
    while (read($file, my $block, 65536)) { $verifier->PRINT($block); }
    $verifier->CLOSE;
    for my $signature ($verifier->signatures) {
        print join("\t", $name, $signature->domain // '', $signature->selector // '', $signature->result_detail), "\n";
    }
}
