package payments

// The names of Stripe's test payment methods that pay.
var paying = map[string]bool{
	"pm_card_visa": true, "pm_card_visa_debit": true, "pm_card_mastercard": true, "pm_card_mastercard_debit": true,
	"pm_card_mastercard_prepaid": true, "pm_card_amex": true, "pm_card_discover": true, "pm_card_diners": true,
	"pm_card_jcb": true, "pm_card_unionpay": true, "pm_card_us": true, "pm_card_de": true, "pm_card_fr": true,
	"pm_card_gb": true, "pm_card_at": true, "pm_card_ch": true, "pm_card_es": true, "pm_card_it": true,
	"pm_card_nl": true, "pm_card_pl": true,
}

// The names of Stripe's test payment methods that are declined, with the code that Stripe answers.
var declining = map[string]string{
	"pm_card_chargeDeclined":                       "card_declined",
	"pm_card_visa_chargeDeclined":                  "card_declined",
	"pm_card_chargeDeclinedInsufficientFunds":      "insufficient_funds",
	"pm_card_visa_chargeDeclinedInsufficientFunds": "insufficient_funds",
	"pm_card_chargeDeclinedLostCard":               "lost_card",
	"pm_card_visa_chargeDeclinedLostCard":          "lost_card",
	"pm_card_chargeDeclinedStolenCard":             "stolen_card",
	"pm_card_visa_chargeDeclinedStolenCard":        "stolen_card",
	"pm_card_chargeDeclinedExpiredCard":            "expired_card",
	"pm_card_chargeDeclinedIncorrectCvc":           "incorrect_cvc",
	"pm_card_chargeDeclinedProcessingError":        "processing_error",
	"pm_card_chargeDeclinedFraudulent":             "fraudulent",
	"pm_card_chargeCustomerFail":                   "card_declined",
	"pm_card_radarBlock":                           "fraudulent",
	"pm_card_authenticationRequired":               "authentication_required",
}

// judge says whether the sandbox lets a payment method pay, and the code when it does not.
func judge(method string) (status Status, declineCode string) {
	if paying[method] {
		return StatusSucceeded, ""
	}
	if code, ok := declining[method]; ok {
		return StatusDeclined, code
	}
	return StatusDeclined, DeclineInvalidMethod
}
