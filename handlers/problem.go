package handlers

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
)

// problem is an answer that is an error: an RFC 9457 problem document. Its slug is the document's type and stays as it
// is; title and detail are for people. Nothing in it repeats a value that a client sent.
type problem struct {
	status int
	slug   string
	title  string
	detail string
	errs   []fieldError
	more   map[string]any    // extension members
	header map[string]string // of the answer
	cause  error             // for the log
	// unread says that it is about a body that was not read to its end. For net/http the client has left then; it may be there, and listen.
	unread bool
}

// fieldError names what is wrong in a request: a JSON pointer into the body, or ?name for a query parameter.
type fieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.slug + ": " + p.cause.Error()
	}
	return p.slug + ": " + p.detail
}

func (p *problem) Unwrap() error { return p.cause }

// document is the body of the answer.
func (p *problem) document(correlationID string) ([]byte, error) {
	members := maps.Clone(p.more)
	if members == nil {
		members = map[string]any{}
	}
	members["type"], members["title"], members["status"] = p.slug, p.title, p.status
	members["correlation_id"] = correlationID
	if p.detail != "" {
		members["detail"] = p.detail
	}
	if len(p.errs) > 0 {
		members["errors"] = p.errs
	}
	return json.Marshal(members)
}

// malformed is for a request that cannot be read; errs name the place where it is known.
func malformed(detail string, errs ...fieldError) *problem {
	return &problem{status: http.StatusBadRequest, slug: "malformed", title: "The request cannot be read", detail: detail, errs: errs}
}

// validation is for a request that can be read and asks for what cannot be.
func validation(errs []fieldError) *problem {
	p := &problem{status: http.StatusUnprocessableEntity, slug: "validation", title: "The request is not valid", errs: errs}
	if len(errs) == 1 {
		p.detail = errs[0].Pointer + " " + errs[0].Detail
	}
	return p
}

// invalid is validation with a single field.
func invalid(pointer, detail string) *problem {
	return validation([]fieldError{{Pointer: pointer, Detail: detail}})
}

func unauthenticated(detail string) *problem {
	return &problem{
		status: http.StatusUnauthorized, slug: "unauthenticated", title: "Authentication is required", detail: detail,
		header: map[string]string{"WWW-Authenticate": "Bearer"},
	}
}

// notFound is also the answer for what belongs to somebody else: whether it exists is not told.
func notFound(what string) *problem {
	return &problem{status: http.StatusNotFound, slug: "not-found", title: "Not found", detail: "there is no such " + what}
}

func conflictProblem(slug, detail string) *problem {
	return &problem{status: http.StatusConflict, slug: slug, title: "That does not fit the present state", detail: detail}
}

func unsupported(detail string) *problem {
	return &problem{
		status: http.StatusUnsupportedMediaType, slug: "unsupported-media-type", title: "The body's type is not supported", detail: detail,
	}
}

func tooLarge() *problem {
	return &problem{
		status: http.StatusRequestEntityTooLarge, slug: "too-large", title: "The body is too large",
		detail: "the body may have at most " + strconv.Itoa(maxBody) + " bytes", unread: true,
	}
}

// unavailable is for what will work again by itself; Retry-After says when to try.
func unavailable(detail string) *problem {
	return &problem{
		status: http.StatusServiceUnavailable, slug: "unavailable", title: "The service is unavailable for the moment", detail: detail,
		header: map[string]string{"Retry-After": "1"},
	}
}

func internalError(cause error) *problem {
	return &problem{
		status: http.StatusInternalServerError, slug: "internal", title: "Something broke on our side",
		detail: "the correlation id finds it in the log", cause: cause,
	}
}
