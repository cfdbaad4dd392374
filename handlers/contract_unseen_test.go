package handlers_test

// unseeable are documented answers that no test of this package can see, and why.
var unseeable = map[string]string{
	"POST /v1/signup 429":                   "the limits are counted elsewhere",
	"POST /v1/sessions 429":                 "the limits are counted elsewhere",
	"POST /v1/carts/{cart_id}/checkout 429": "the limits are counted elsewhere",
}
