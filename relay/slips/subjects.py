"""Subjects of Alma's letters by language: what letters are called where nobody has named them otherwise.

Patterns with `*`, compared without regard to case. They are labels, so an institution may have others, and adds them in
the configuration (`institutions.subjects`). A subject that several types share stands here for none of them.
"""

from __future__ import annotations

from collections.abc import Mapping

_EN: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("resource request", "resource request slip*", "request slip", "pick slip"),
    "FulTransitSlipLetter": ("transit slip*", "in transit", "item in transit"),
    "FulLoanReceiptLetter": ("loan receipt*",),
    "FulReturnReceiptLetter": ("return receipt*",),
    "FulPlaceOnHoldShelfLetter": ("on hold shelf*", "item on hold shelf", "place on hold shelf*"),
    "FulHoldShelfRequestSlipLetter": ("hold shelf request slip*", "hold shelf slip*"),
    "FulIncomingSlipLetter": ("incoming slip*", "lending slip*", "lending request slip*"),
    "FulOutgoingEmailLetter": ("outgoing slip*", "borrowing request"),
    "FulRequestsReportLetter": ("requests report*", "request report"),
    "FulCancelRequestLetter": ("request cancelled", "request cancellation", "cancel request letter"),
    "FulUserBorrowingActivityLetter": ("borrowing activity*",),
    "FulUserOverdueNoticeLetter": ("overdue notice*",),
    "FulFinesFeesNotificationLetter": ("fines and fees*", "fines/fees*"),
    "FineFeePaymentReceiptLetter": ("payment receipt*", "fine payment receipt", "fine/fee payment receipt*"),
    "FulLostLoanLetter": ("lost loan*",),
    "FulItemChangeDueDateLetter": ("due date change*", "change due date*"),
    "OrderListLetter": ("order list*", "purchase order list"),
    "ReceivingSlipLetter": ("receiving slip*",),
    "ResourceSharingShippingSlipLetter": ("resource sharing shipping slip*", "shipping slip*"),
    "ResourceSharingReceiveSlipLetter": ("resource sharing receive slip*", "resource sharing received slip*"),
    "ResourceSharingReturnSlipLetter": ("resource sharing return slip*",),
    "PrinterTestLetter": ("printer test*", "test letter*"),
}

_DE: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("bestellschein", "magazinbestellung", "ressourcenanforderung*"),
    "FulTransitSlipLetter": (
        "transportschein",
        "transportzettel",
        "transitschein*",
        "transitbeleg*",
        "quittungsbeleg transport",
    ),
    "FulLoanReceiptLetter": ("ausleihquittung*", "ausleihbeleg", "leihquittung"),
    "FulReturnReceiptLetter": ("rückgabequittung*", "rückgabebeleg"),
    "FulPlaceOnHoldShelfLetter": ("abholbenachrichtigung", "bereitgestelltes exemplar", "zur abholung bereit*"),
    "FulIncomingSlipLetter": ("fernleihe eingang*", "eingehende fernleihe"),
    "FulUserBorrowingActivityLetter": ("kontoübersicht*", "ausleihübersicht"),
    "FulUserOverdueNoticeLetter": ("mahnung*", "überfälligkeitsbenachrichtigung"),
    "FineFeePaymentReceiptLetter": ("zahlungsbeleg*", "gebührenquittung*", "zahlungsquittung*"),
    "OrderListLetter": ("bestellliste*",),
    "ResourceSharingShippingSlipLetter": ("versandschein*", "fernleihe versandschein*"),
    "ResourceSharingReturnSlipLetter": ("rücksendeschein*", "fernleihe rücksendeschein*"),
    "PrinterTestLetter": ("druckertest*", "testbrief*"),
}

_FR: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("demande de ressource*", "bordereau de demande*", "bulletin de demande*"),
    "FulTransitSlipLetter": ("bordereau de transit*", "bulletin de transit*", "en transit"),
    "FulLoanReceiptLetter": ("reçu de prêt*", "reçu d'emprunt*"),
    "FulReturnReceiptLetter": ("reçu de retour*",),
    "FulPlaceOnHoldShelfLetter": ("document réservé disponible*", "document mis de côté*"),
    "FulUserBorrowingActivityLetter": ("activité d'emprunt*", "récapitulatif de vos prêts*"),
    "FulUserOverdueNoticeLetter": ("avis de retard*",),
    "FineFeePaymentReceiptLetter": ("reçu de paiement*",),
    "OrderListLetter": ("liste de commandes*", "bon de commande*"),
    "ResourceSharingShippingSlipLetter": ("bordereau d'expédition*", "bordereau d'envoi*"),
    "ResourceSharingReturnSlipLetter": ("bordereau de retour*",),
    "ResourceSharingReceiveSlipLetter": ("bordereau de réception*",),
    "PrinterTestLetter": ("test d'imprimante*",),
}

_ES: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("solicitud de recurso*", "papeleta de solicitud*"),
    "FulTransitSlipLetter": ("hoja de tránsito*", "papeleta de tránsito*", "comprobante de tránsito*"),
    "FulLoanReceiptLetter": ("recibo de préstamo*", "comprobante de préstamo*"),
    "FulReturnReceiptLetter": ("recibo de devolución*", "comprobante de devolución*"),
    "FulUserOverdueNoticeLetter": ("aviso de vencimiento*", "aviso de retraso*"),
    "FineFeePaymentReceiptLetter": ("recibo de pago*",),
}

_IT: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("richiesta risorsa*", "richiesta di risorsa*", "modulo di richiesta*"),
    "FulTransitSlipLetter": ("ricevuta di transito*", "bolla di transito*", "in transito"),
    "FulLoanReceiptLetter": ("ricevuta di prestito*", "ricevuta del prestito*"),
    "FulReturnReceiptLetter": ("ricevuta di restituzione*", "ricevuta di rientro*"),
    "FulUserOverdueNoticeLetter": ("avviso di scadenza*", "sollecito*"),
    "FineFeePaymentReceiptLetter": ("ricevuta di pagamento*",),
}

_NL: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("aanvraagbon*", "aanvraagstrook*"),
    "FulTransitSlipLetter": ("transportbon*", "transitbon*", "transitstrook*"),
    "FulLoanReceiptLetter": ("uitleenbon*", "leenbon*"),
    "FulReturnReceiptLetter": ("retourbon*", "inleverbon*"),
    "FulUserOverdueNoticeLetter": ("aanmaning*", "te laat*"),
    "FineFeePaymentReceiptLetter": ("betaalbewijs*", "betalingsbewijs*"),
}

_NO: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("bestillingsseddel*", "hentelapp*"),
    "FulTransitSlipLetter": ("transportseddel*", "transportlapp*"),
    "FulLoanReceiptLetter": ("lånekvittering*",),
    "FulReturnReceiptLetter": ("returkvittering*", "innleveringskvittering*"),
    "FulPlaceOnHoldShelfLetter": ("hentemelding*", "klar til henting*"),
    "OrderListLetter": ("bestillingsliste*",),
}

_SV: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("beställningssedel*", "beställningskvitto*"),
    "FulTransitSlipLetter": ("transportsedel*", "transitsedel*"),
    "FulLoanReceiptLetter": ("lånekvitto*", "lånkvitto*"),
    "FulReturnReceiptLetter": ("återlämningskvitto*",),
}

_DA: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("bestillingsseddel*",),
    "FulTransitSlipLetter": ("transportseddel*", "transitseddel*"),
    "FulLoanReceiptLetter": ("lånekvittering*", "udlånskvittering*"),
    "FulReturnReceiptLetter": ("afleveringskvittering*",),
}

_FI: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("varauslappu*", "noutopyyntö*"),
    "FulTransitSlipLetter": ("kuljetuslappu*", "siirtolappu*"),
    "FulLoanReceiptLetter": ("lainauskuitti*", "lainakuitti*"),
    "FulReturnReceiptLetter": ("palautuskuitti*",),
}

_HE: Mapping[str, tuple[str, ...]] = {
    "FulReasourceRequestSlipLetter": ("בקשת משאב*",),
    "FulTransitSlipLetter": ("פתק העברה*",),
    "FulLoanReceiptLetter": ("אישור השאלה*",),
    "FulReturnReceiptLetter": ("אישור החזרה*",),
}

SUBJECTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "da": _DA,
    "de": _DE,
    "en": _EN,
    "es": _ES,
    "fi": _FI,
    "fr": _FR,
    "he": _HE,
    "it": _IT,
    "nl": _NL,
    "no": _NO,
    "sv": _SV,
}
"""Per language: patterns of the subject for each type."""
