package stripefake

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The statuses of an intent, by Stripe's names.
const (
	StatusRequiresConfirmation  = "requires_confirmation"
	StatusProcessing            = "processing"
	StatusSucceeded             = "succeeded"
	StatusRequiresPaymentMethod = "requires_payment_method" // it was declined
)

// The payment methods that are not declined.
const (
	MethodPays = "pm_card_visa"
	// MethodSlow stays in processing until Settle.
	MethodSlow = "pm_slow"
	// A method whose name begins so does not exist.
	noMethod = "nonsense"
)

const declineCode = "insufficient_funds"

// Intent is a PaymentIntent.
type Intent struct {
	ID       string    `json:"id"`
	EventID  string    `json:"event_id"` // from its metadata
	OrderID  string    `json:"order_id"` // from its metadata
	Method   string    `json:"method"`
	Amount   int64     `json:"amount"`
	Currency string    `json:"currency"`
	Status   string    `json:"status"`
	Charges  int       `json:"charges"` // how often money was moved for it
	Created  time.Time `json:"created"`
}

// paymentIntent is the object as Stripe sends it.
type paymentIntent struct {
	ID               string            `json:"id"`
	Object           string            `json:"object"`
	Status           string            `json:"status"`
	Amount           int64             `json:"amount"`
	Currency         string            `json:"currency"`
	Created          int64             `json:"created"`
	Livemode         bool              `json:"livemode"`
	Metadata         map[string]string `json:"metadata"`
	LastPaymentError *apiError         `json:"last_payment_error"`
}

func (i *Intent) object() *paymentIntent {
	o := &paymentIntent{
		ID: i.ID, Object: "payment_intent", Status: i.Status, Amount: i.Amount, Currency: i.Currency, Created: i.Created.Unix(),
		Metadata: map[string]string{"event_id": i.EventID, "order_id": i.OrderID},
	}
	if i.Status == StatusRequiresPaymentMethod {
		o.LastPaymentError = declined()
	}
	return o
}

func declined() *apiError {
	return &apiError{Type: "card_error", Code: "card_declined", DeclineCode: declineCode, Message: "Your card has insufficient funds."}
}

// Intents returns all intents, the oldest first.
func (s *Stripe) Intents() []Intent {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Intent, len(s.order))
	for i, id := range s.order {
		all[i] = *s.intents[id]
	}
	return all
}

// ErrNotProcessing says that there is no such intent, or that it waits for no result.
var ErrNotProcessing = errors.New("stripefake: the intent is not processing")

// Settle gives an intent that is processing its result: charged, or declined.
func (s *Stripe) Settle(intentID string, paid bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	intent, ok := s.intents[intentID]
	if !ok || intent.Status != StatusProcessing {
		return fmt.Errorf("%w: %s", ErrNotProcessing, intentID)
	}
	return s.change(intent, map[bool]string{true: StatusSucceeded, false: StatusRequiresPaymentMethod}[paid])
}

// Event returns what Stripe's webhook says of an intent as it is now. The same state gives the same event.
func (s *Stripe) Event(intentID string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	intent, ok := s.intents[intentID]
	if !ok {
		return nil, fmt.Errorf("stripefake: no intent %s", intentID)
	}
	name := map[string]string{
		StatusRequiresConfirmation: "created", StatusProcessing: "processing", StatusSucceeded: "succeeded",
		StatusRequiresPaymentMethod: "payment_failed",
	}[intent.Status]
	return json.Marshal(map[string]any{
		"id": "evt_" + intent.ID + "_" + name, "object": "event", "type": "payment_intent." + name,
		"created": intent.Created.Unix(), "livemode": false, "pending_webhooks": 1, "api_version": nil,
		"data": map[string]any{"object": intent.object()},
	})
}

// change brings an intent into a status, once that is recorded.
func (s *Stripe) change(intent *Intent, status string) error {
	after, what := *intent, "processing"
	after.Status = status
	switch status {
	case StatusSucceeded:
		what = "charged"
		after.Charges++
	case StatusRequiresPaymentMethod:
		what = "declined"
	}
	if err := s.record(Change{what, after}); err != nil {
		return err
	}
	*intent = after
	return nil
}

func (s *Stripe) create(form url.Values) answer {
	method := form.Get("payment_method")
	if strings.HasPrefix(method, noMethod) {
		return refuse(http.StatusBadRequest, apiError{
			Type: "invalid_request_error", Code: "resource_missing", Param: "payment_method", Message: "No such PaymentMethod: '" + method + "'",
		})
	}
	amount, err := strconv.ParseInt(form.Get("amount"), 10, 64)
	if err != nil || amount <= 0 {
		return refuse(http.StatusBadRequest, apiError{Type: "invalid_request_error", Code: "parameter_invalid_integer", Param: "amount"})
	}
	intent := &Intent{
		ID: fmt.Sprintf("pi_%d", len(s.order)+1), EventID: form.Get("metadata[event_id]"), OrderID: form.Get("metadata[order_id]"),
		Method: method, Amount: amount, Currency: form.Get("currency"), Status: StatusRequiresConfirmation, Created: time.Now(),
	}
	if err := s.record(Change{"created", *intent}); err != nil {
		return unrecorded()
	}
	s.intents[intent.ID] = intent
	s.order = append(s.order, intent.ID)
	return answer{status: http.StatusOK, body: intent.object()}
}

// search answers with what the index has: intents of some age, as they were when they were made.
func (s *Stripe) search(query string) answer {
	found := []*paymentIntent{}
	for _, id := range s.order {
		intent := *s.intents[id]
		if query == "metadata['event_id']:'"+intent.EventID+"'" && time.Since(intent.Created) >= s.lag {
			intent.Status = StatusRequiresConfirmation
			found = append(found, intent.object())
		}
	}
	return answer{status: http.StatusOK, body: map[string]any{
		"object": "search_result", "data": found, "has_more": false, "url": intentsPath + "/search",
	}}
}

func (s *Stripe) confirm(intent *Intent) answer {
	if intent.Status != StatusRequiresConfirmation {
		return failed(http.StatusBadRequest, apiError{
			Type: "invalid_request_error", Code: "payment_intent_unexpected_state", Intent: intent.object(),
		})
	}
	status := StatusRequiresPaymentMethod
	switch intent.Method {
	case MethodPays:
		status = StatusSucceeded
	case MethodSlow:
		status = StatusProcessing
	}
	if err := s.change(intent, status); err != nil {
		return unrecorded()
	}
	if status == StatusRequiresPaymentMethod {
		e := declined()
		e.Intent = intent.object()
		return failed(http.StatusPaymentRequired, *e)
	}
	return answer{status: http.StatusOK, body: intent.object()}
}
