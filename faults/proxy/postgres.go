package proxy

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// The types of messages that matter here, as in "Message Formats" of PostgreSQL's manual.
const (
	msgQuery           = 'Q' // from the client: a simple query
	msgParse           = 'P' // from the client: a statement of the extended protocol
	msgCommandComplete = 'C' // from the server
	msgNotification    = 'A' // from the server
)

// The codes of the first messages, which have no type. What is none of these is a startup message.
const (
	codeCancel = 80877102
	codeTLS    = 80877103
	codeGSS    = 80877104
)

// sqlSeen is how much of a statement is looked at.
const sqlSeen = 1 << 10

// commitTag is the body of the message that says that a COMMIT was done. The tag of a COMMIT that found its transaction
// failed is ROLLBACK.
var commitTag = []byte("COMMIT\x00")

// newServerFrames reads what the server sends. The transaction is committed when it sends the tag.
func newServerFrames(l *link, coin *rand.Rand) *frames {
	return &frames{
		typed: true,
		looks: func(typ byte) int {
			if typ == msgCommandComplete {
				return len(commitTag) + 1 // one more, to tell a longer one
			}
			return 0
		},
		judge: func(typ byte, body []byte) verdict {
			switch typ {
			case msgCommandComplete:
				if bytes.Equal(body, commitTag) && l.proxy.takesCommit(coin) {
					return cut
				}
			case msgNotification:
				if m, _ := l.proxy.current(); m.swallow {
					l.proxy.counts.notifications.Add(1)
					return drop
				}
			}
			return pass
		},
	}
}

// newClientFrames reads what the client sends, from its first byte on.
func newClientFrames(l *link) *frames {
	f := &frames{}
	f.looks = func(typ byte) int {
		switch {
		case !f.typed:
			return 4
		case typ == msgQuery, typ == msgParse:
			return sqlSeen
		default:
			return 0
		}
	}
	f.judge = func(typ byte, body []byte) verdict {
		switch {
		case !f.typed:
			return l.judgeFirst(f, body)
		case typ == msgQuery:
			l.noteSQL(body)
		case typ == msgParse:
			_, sql, _ := bytes.Cut(body, []byte{0}) // the statement's name comes first
			l.noteSQL(sql)
		}
		return pass
	}
	return f
}

// judgeFirst decides over a client's message before there is a session.
func (l *link) judgeFirst(f *frames, body []byte) verdict {
	if len(body) < 4 {
		return pass // the server refuses it
	}
	switch binary.BigEndian.Uint32(body) {
	case codeTLS, codeGSS:
		// Encrypted messages cannot be read. The answer is a byte and no message, so it must not pass the server's frames.
		_, _ = l.client.Write([]byte{'N'})
		return drop
	case codeCancel:
		return pass
	default:
		f.typed = true
		return pass
	}
}

func (l *link) noteSQL(sql []byte) {
	if hasListen(sql) {
		l.listens.Store(true)
	}
}

// hasListen reports whether one of the statements is a LISTEN. Of a semicolon in a text it may think that it ends a statement.
func hasListen(sql []byte) bool {
	for statement := range bytes.SplitSeq(sql, []byte{';'}) {
		words := bytes.Fields(withoutComments(statement))
		if len(words) > 0 && bytes.EqualFold(words[0], []byte("listen")) {
			return true
		}
	}
	return false
}

// withoutComments cuts off the lines that are comments, as generated queries begin with.
func withoutComments(statement []byte) []byte {
	statement = bytes.TrimSpace(statement)
	for bytes.HasPrefix(statement, []byte("--")) {
		_, after, _ := bytes.Cut(statement, []byte{'\n'})
		statement = bytes.TrimSpace(after)
	}
	return statement
}
