#!/bin/sh
# The mechanism of a virtual printer: ippeveprinter runs this for each document, whose path is $1.
#
# BENCH_PRINTER is the printer's folder: `fault` (what is broken; empty or missing is healthy), `paper/` (documents that
# were completed, names in order of completion), `asked/` (beside each the job's IPP attributes, as IPP_NAME=value),
# `counter` and `printed.log`. BENCH_ASK is an ipptool file that succeeds
# when the job was cancelled.
#
# Promises: a document lands in paper/ whole or not at all, as the last thing before success. A job that was aborted,
# cancelled, or whose printer died leaves nothing there.
set -u
rests=0
stopped_by=
slow_until=

read_fault() {
    fault='' argument=''
    # shellcheck disable=SC2162
    [ -r "$BENCH_PRINTER/fault" ] && read fault argument <"$BENCH_PRINTER/fault"
    return 0
}

now_ms() { date +%s%3N; }

was_cancelled() { ipptool -t "$IPP_JOB_URI" "$BENCH_ASK" >/dev/null 2>&1; }

end() {
    [ -n "$stopped_by" ] && echo "STATE: -$stopped_by-error" >&2
    exit "$1"
}

printer_lives() { kill -0 "$PPID" 2>/dev/null; }

rest() {
    sleep 0.1
    printer_lives || exit 1
    rests=$((rests + 1))
    [ $((rests % 5)) -eq 0 ] && was_cancelled && end 1
    return 0
}

stop_with() {
    [ "$stopped_by" = "$1" ] && return
    stopped_by=$1
    echo "STATE: +$1-error" >&2
}

is_over() {
    [ -n "$slow_until" ] || slow_until=$(awk -v now="$(now_ms)" -v s="$argument" 'BEGIN { printf "%.0f", now + s * 1000 }')
    [ "$(now_ms)" -ge "$slow_until" ]
}

while :; do
    read_fault
    case $fault in
    media-empty | media-jam | cover-open) stop_with "$fault" ;;
    abort) end 1 ;;
    slow) is_over && break ;;
    offline) ;; # the bench is about to kill this printer
    *) break ;;
    esac
    rest
done

[ "$rests" -gt 0 ] && was_cancelled && end 1

number=0
[ -r "$BENCH_PRINTER/counter" ] && read -r number <"$BENCH_PRINTER/counter"
number=$((number + 1))
case $CONTENT_TYPE in
application/pdf) suffix=pdf ;;
image/pwg-raster) suffix=pwg ;;
*) suffix=bin ;;
esac
echo "$number" >"$BENCH_PRINTER/counter.new" && mv "$BENCH_PRINTER/counter.new" "$BENCH_PRINTER/counter" || end 1
cp "$1" "$BENCH_PRINTER/coming" || end 1
printer_lives || exit 1
name=$(printf '%06d-job%d.%s' "$number" "$IPP_JOB_ID" "$suffix")
mkdir -p "$BENCH_PRINTER/asked" && env | grep '^IPP_' >"$BENCH_PRINTER/asked/$name"
echo "$name $IPP_JOB_NAME" >>"$BENCH_PRINTER/printed.log"
mv "$BENCH_PRINTER/coming" "$BENCH_PRINTER/paper/$name" || end 1
end 0
