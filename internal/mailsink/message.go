package mailsink

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"time"
)

// Message is a mail that was accepted.
type Message struct {
	ID            string    `json:"id"`
	ReceivedAt    time.Time `json:"received_at"`
	From          string    `json:"from"`
	To            []string  `json:"to"`
	Subject       string    `json:"subject"`
	MessageID     string    `json:"message_id"` // without its angle brackets
	CorrelationID string    `json:"correlation_id"`
	Text          string    `json:"text"`
}

// maxParts and maxDepth bound what is read of a message that is all structure and no content.
const (
	maxParts = 100
	maxDepth = 10
)

// parse reads what it can: a message that is none by the rules was accepted all the same, and is shown as it came.
func parse(id string, receivedAt time.Time, content []byte) Message {
	m := Message{ID: id, ReceivedAt: receivedAt.UTC(), To: []string{}}
	msg, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		m.Text = valid(string(content))
		return m
	}
	m.From = valid(strings.Trim(msg.Header.Get("Return-Path"), "<>"))
	for _, to := range msg.Header["Delivered-To"] {
		m.To = append(m.To, valid(to))
	}
	m.Subject = decodeHeader(msg.Header.Get("Subject"))
	m.MessageID = valid(strings.Trim(msg.Header.Get("Message-ID"), "<> "))
	m.CorrelationID = valid(msg.Header.Get("X-Correlation-ID"))
	budget := maxParts
	m.Text, _ = text(textproto.MIMEHeader(msg.Header), msg.Body, maxDepth, &budget)
	return m
}

// text is the first part of type text/plain, decoded.
func text(header textproto.MIMEHeader, body io.Reader, depth int, budget *int) (string, bool) {
	if depth == 0 || *budget == 0 {
		return "", false
	}
	*budget--
	mediaType, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		mediaType = "text/plain" // RFC 2045: what says nothing is plain text
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		parts := multipart.NewReader(body, params["boundary"])
		for {
			part, err := parts.NextRawPart()
			if err != nil {
				return "", false
			}
			if found, ok := text(part.Header, part, depth-1, budget); ok {
				return found, true
			}
			if *budget == 0 {
				return "", false
			}
		}
	}
	if mediaType != "text/plain" {
		return "", false
	}
	switch strings.ToLower(strings.TrimSpace(header.Get("Content-Transfer-Encoding"))) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	decoded, _ := io.ReadAll(body) // up to where it breaks off
	return valid(strings.ReplaceAll(string(decoded), "\r\n", "\n")), true
}

func decodeHeader(value string) string {
	decoded, err := new(mime.WordDecoder).DecodeHeader(value)
	if err != nil {
		decoded = value // in a character set that is not known here
	}
	return valid(decoded)
}

// valid makes a text that JSON and people can hold.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
