// Package pgoutbox holds the description of the service's HTTP, which both of its listeners serve. The library is package outbox.
package pgoutbox

import _ "embed"

// OpenAPI is openapi.yaml: the OpenAPI 3.1 document of both listeners, to which the tests hold every answer. Nobody may write to it.
//
//go:embed openapi.yaml
var OpenAPI []byte
