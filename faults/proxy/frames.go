package proxy

import (
	"encoding/binary"
	"errors"
)

// verdict is what becomes of a message.
type verdict int

const (
	pass verdict = iota
	drop
	cut // the message is not forwarded and the connection is reset
)

// maxMessage is more than any message of PostgreSQL may hold: beyond it something else than messages is being read.
const maxMessage = 1 << 30

var errUnreadable = errors.New("proxy: this is not PostgreSQL's protocol")

// frames cuts one direction of a connection into PostgreSQL's messages and asks for each what becomes of it. It holds back no more than
// the beginning of a message, so messages may be of any size and arrive in any pieces.
type frames struct {
	// typed says that a message begins with a type; the first ones of a client do not.
	typed bool
	// looks tells how many bytes of such a message's body the judge wants to see at most.
	looks func(typ byte) int
	// judge decides over a message by the beginning of its body.
	judge func(typ byte, body []byte) verdict

	rest    int  // bytes of the present message that are to come
	dropped bool // they are not forwarded
}

// scan returns what of the bytes is to be forwarded, in place, and what of them has to be shown again with more bytes behind. After a
// cut there is nothing more to show.
func (f *frames) scan(b []byte) (forward, again []byte, v verdict, err error) {
	in, out := 0, 0
	for in < len(b) {
		if f.rest > 0 {
			n := min(f.rest, len(b)-in)
			if !f.dropped {
				out += copy(b[out:], b[in:in+n])
			}
			in += n
			f.rest -= n
			continue
		}
		typ, head := byte(0), 4
		if f.typed {
			typ, head = b[in], 5
		}
		if len(b)-in < head {
			break
		}
		size := int(binary.BigEndian.Uint32(b[in+head-4:])) + head - 4 // the length counts itself, not the type
		if size < head || size > maxMessage {
			return nil, nil, cut, errUnreadable
		}
		seen := head + min(size-head, f.looks(typ))
		if len(b)-in < seen {
			break
		}
		switch f.judge(typ, b[in+head:in+seen]) {
		case cut:
			return b[:out], nil, cut, nil
		case drop:
			f.dropped = true
		default:
			f.dropped = false
		}
		f.rest = size
	}
	return b[:out], b[in:], pass, nil
}
