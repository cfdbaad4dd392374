// Package stripefake is as much of Stripe as package payments asks for, and it keeps a state: it honours idempotency keys, charges an
// intent at most once, forgets nothing, and can be asked what money moved. Its search lags behind, as Stripe's does.
//
// It breaks nothing by itself. What loses answers or refuses to work stands in front of it.
package stripefake

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Change is something that has happened to an intent.
type Change struct {
	// What is "created", "charged", "declined" or "processing".
	What string
	// Intent is as it is afterwards.
	Intent Intent
}

// Stripe is an http.Handler, safe for concurrent use.
type Stripe struct {
	secretKey string
	record    func(Change) error

	mu      sync.Mutex
	intents map[string]*Intent
	order   []string // their ids, oldest first
	kept    map[string]kept
	lag     time.Duration
}

// kept is the answer to the first request under an idempotency key.
type kept struct {
	request string
	answer  answer
}

type answer struct {
	status int
	body   any
	// unkept says that the request was refused before anything was tried: the key can be used again.
	unkept bool
}

// New returns a Stripe without intents, for clients with that secret key. Each change is recorded before anybody can see it, one at a
// time; one that cannot be recorded does not happen. A nil record records nothing.
func New(secretKey string, record func(Change) error) *Stripe {
	if record == nil {
		record = func(Change) error { return nil }
	}
	return &Stripe{secretKey: secretKey, record: record, intents: map[string]*Intent{}, kept: map[string]kept{}}
}

// SetSearchLag makes the search find an intent only when it is that old.
func (s *Stripe) SetSearchLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = lag
}

func (s *Stripe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := s.answer(r)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", "req_1")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body)
}

func (s *Stripe) answer(r *http.Request) answer {
	if r.Header.Get("Authorization") != "Bearer "+s.secretKey {
		return refuse(http.StatusUnauthorized, apiError{Type: "invalid_request_error", Message: "Invalid API Key provided: " + s.secretKey})
	}
	if err := r.ParseForm(); err != nil {
		return refuse(http.StatusBadRequest, apiError{Type: "invalid_request_error", Message: "the form cannot be read"})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		return s.get(r)
	case http.MethodPost:
		return s.once(r, s.post)
	default:
		return refuse(http.StatusMethodNotAllowed, apiError{Type: "invalid_request_error"})
	}
}

// once gives the answer that the idempotency key has, or the one of work. The lock is held all the time, so no two requests
// under a key are under way at once.
func (s *Stripe) once(r *http.Request, work func(*http.Request) answer) answer {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return work(r)
	}
	request := r.URL.Path + "?" + r.PostForm.Encode()
	if first, ok := s.kept[key]; ok {
		if first.request != request {
			return refuse(http.StatusBadRequest, apiError{
				Type: "idempotency_error", Message: "Keys for idempotent requests can only be used with the same parameters",
			})
		}
		return first.answer
	}
	a := work(r)
	if !a.unkept {
		s.kept[key] = kept{request, a}
	}
	return a
}

const intentsPath = "/v1/payment_intents"

func (s *Stripe) get(r *http.Request) answer {
	if r.URL.Path == intentsPath+"/search" {
		return s.search(r.Form.Get("query"))
	}
	intent, ok := s.intents[strings.TrimPrefix(r.URL.Path, intentsPath+"/")]
	if !ok {
		return missing()
	}
	return answer{status: http.StatusOK, body: intent.object()}
}

func (s *Stripe) post(r *http.Request) answer {
	if r.URL.Path == intentsPath {
		return s.create(r.PostForm)
	}
	id, confirm := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, intentsPath+"/"), "/confirm")
	intent, ok := s.intents[id]
	if !ok || !confirm {
		return missing()
	}
	return s.confirm(intent)
}

// apiError is Stripe's error object.
type apiError struct {
	Type        string         `json:"type"`
	Code        string         `json:"code,omitempty"`
	DeclineCode string         `json:"decline_code,omitempty"`
	Param       string         `json:"param,omitempty"`
	Message     string         `json:"message,omitempty"`
	Intent      *paymentIntent `json:"payment_intent,omitempty"`
}

func failed(status int, e apiError) answer {
	return answer{status: status, body: map[string]apiError{"error": e}}
}

func refuse(status int, e apiError) answer {
	a := failed(status, e)
	a.unkept = true
	return a
}

func missing() answer {
	return refuse(http.StatusNotFound, apiError{Type: "invalid_request_error", Code: "resource_missing", Message: "No such payment_intent"})
}

func unrecorded() answer { return refuse(http.StatusInternalServerError, apiError{Type: "api_error"}) }
