package outbox

import (
	"encoding/json"
	"fmt"
)

// upcasters turn the data of old events into what code of today reads: by type, and by the version they start from.
type upcasters map[string]map[int]upcast

// upcast is a step, and the check whether data is strictly what it begins with.
type upcast struct {
	raise    func(json.RawMessage) (json.RawMessage, error)
	strictly func(json.RawMessage) error
}

// Upcast teaches a program to read events of a type that were written with an older schema version: fn turns the data of
// version from into that of the next version. Several for a type follow one another, each from the version that the one
// before it leads to, so that a handler of any consumer of the registry only ever sees the newest shape; Received.SchemaVersion
// says which that is. The log keeps what was written, and so does a dead letter; an operator's repair of an event is in the
// event's own version, too.
//
// Producers give the version of what they write in Event.SchemaVersion. An event of a newer version than the upcasters lead
// to, written by a newer build, reaches the handler as it is. An error or a panic of fn is a failed attempt of the event.
//
// Upcast panics on a version below 1 or on a second fn for the same step; it is called while a program starts.
func Upcast[From, To any](r *Registry, eventType string, from int, fn func(From) (To, error)) {
	steps := r.upcasters[eventType]
	switch {
	case !typeForm.MatchString(eventType) || from < 1:
		panic(fmt.Sprintf("outbox: upcast of %q from version %d: it takes a type, as in user.signed_up, and a version from 1", eventType, from))
	case steps[from].raise != nil:
		panic(fmt.Sprintf("outbox: upcast of %s from version %d is registered twice", eventType, from))
	case steps == nil:
		steps = map[int]upcast{}
		r.upcasters[eventType] = steps
	}
	steps[from] = upcast{strictly: strictly[From], raise: func(data json.RawMessage) (json.RawMessage, error) {
		var old From
		if err := json.Unmarshal(data, &old); err != nil {
			return nil, err
		}
		next, err := fn(old)
		if err != nil {
			return nil, err
		}
		return json.Marshal(next)
	}}
}

// raise returns the data of an event in the newest shape that there is a way to, and its version.
func (u upcasters) raise(e *stored) (json.RawMessage, int, error) {
	data, version := e.Data, int(e.SchemaVersion)
	for steps := u[e.Type]; steps[version].raise != nil; version++ {
		var err error
		if data, err = steps[version].raise(data); err != nil {
			return nil, version, fmt.Errorf("upcast %s from version %d: %w", e.Type, version, err)
		}
	}
	return data, version, nil
}

// check raises an event that an operator has edited, whose data must be strictly what its own version begins with.
func (u upcasters) check(e *stored) (json.RawMessage, error) {
	if step := u[e.Type][int(e.SchemaVersion)]; step.strictly != nil {
		if err := step.strictly(e.Data); err != nil {
			return nil, err
		}
	}
	var data json.RawMessage
	err := guard(func() (err error) {
		data, _, err = u.raise(e)
		return err
	})
	if err != nil {
		return nil, &InvalidDataError{[]DataProblem{{"", "cannot be raised to the newest version: a rehearsal tells why"}}}
	}
	return data, nil
}
