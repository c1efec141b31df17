package content

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxFields bounds Fields, in bytes.
const MaxFields = 8 << 10

// Fields are the end-to-end header fields of an origin's answer that Meta has no
// place of its own for, such as Content-Disposition and Expires. Each is
// "Name: value\n"; a name may come several times. It is text, so that it can be
// compared, stored and sent as it is.
type Fields string

// NewFields writes fields in the order given. It leaves out those for which
// FieldCarried is false, and what is no field by RFC 9110 section 5. The error
// says that they are more than MaxFields.
func NewFields(fields iter.Seq2[string, string]) (Fields, error) {
	var b strings.Builder
	for name, value := range fields {
		value = strings.Trim(value, " \t")
		if FieldCarried(name) && isToken(name) && isFieldValue(value) {
			b.WriteString(name + ": " + value + "\n")
		}
	}
	if b.Len() > MaxFields {
		return "", fmt.Errorf("header fields of %d bytes: at most %d", b.Len(), MaxFields)
	}
	return Fields(b.String()), nil
}

// All yields the fields in order.
func (f Fields) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for line := range strings.Lines(string(f)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if !yield(name, value) {
				return
			}
		}
	}
}

// Get returns the value of the first field of a name, in any case, or "".
func (f Fields) Get(name string) string {
	for n, value := range f.All() {
		if strings.EqualFold(n, name) {
			return value
		}
	}
	return ""
}

// Check returns an error unless NewFields could have written f: peers are not
// to put fields into an answer that govern a connection, or a cookie.
func (f Fields) Check() error {
	if again, err := NewFields(f.All()); err != nil {
		return err
	} else if again != f {
		return fmt.Errorf("malformed or forbidden header fields in %.100q", f)
	}
	return nil
}

// CheckValues returns an error where values of header fields cannot be told to
// peers, who have them as texts and would take the message for a broken one: they
// are no UTF-8, hold control characters, or are more than MaxFields together.
func CheckValues(values ...string) error {
	size := 0
	for _, v := range values {
		if !utf8.ValidString(v) || !isFieldValue(v) {
			return fmt.Errorf("field value %.100q is no UTF-8, or has control characters", v)
		}
		size += len(v)
	}
	if size > MaxFields {
		return fmt.Errorf("validators, type and Cache-Control of %d bytes: at most %d", size, MaxFields)
	}
	return nil
}

// notCarried are the fields that Fields never holds, in lower case: those of one
// connection (RFC 9110 section 7.6.1), those that a Meta or a node says itself,
// and what is for one client alone.
var notCarried = []string{
	"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
	"proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
	"accept-ranges", "age", "cache-control", "content-length", "content-range", "content-type", "etag", "last-modified",
	"set-cookie", "set-cookie2", "p2pnode-source", "p2pnode-source-bytes",
}

// FieldCarried reports whether a field of an origin's answer belongs in Fields.
func FieldCarried(name string) bool {
	return !slices.Contains(notCarried, strings.ToLower(name))
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// isFieldValue reports whether s holds no control character but tabs.
func isFieldValue(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}
