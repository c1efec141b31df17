package registry

import (
	"net/http"
	"net/url"
	"strings"
)

// Challenge is what a registry wants before it answers: a token of its
// authorization server (RFC 6750 section 3 and the distribution project's token
// specification).
type Challenge struct {
	Realm, Service, Scope string
}

// ParseChallenge returns the first Bearer challenge of a 401 that names a realm
// of http or https; false where there is none.
func ParseChallenge(h http.Header) (Challenge, bool) {
	for _, field := range h.Values("Www-Authenticate") {
		for field != "" {
			var scheme string
			var params map[string]string
			if scheme, params, field = cutChallenge(field); scheme == "" {
				break
			}
			c := Challenge{Realm: params["realm"], Service: params["service"], Scope: params["scope"]}
			if strings.EqualFold(scheme, "Bearer") && c.tokenURL() != nil {
				return c, true
			}
		}
	}
	return Challenge{}, false
}

// tokenURL returns where the token is had, nil where the realm is no such place.
func (c Challenge) tokenURL() *url.URL {
	u, err := url.Parse(c.Realm)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil
	}
	q := u.Query()
	if c.Service != "" {
		q.Set("service", c.Service)
	}
	if c.Scope != "" {
		q["scope"] = strings.Fields(c.Scope)
	}
	u.RawQuery, u.Fragment = q.Encode(), ""
	return u
}

// cutChallenge takes one challenge (RFC 9110 section 11.6.1) off a field; an
// empty scheme where the field has none that can be read. Parameters' names are
// in lower case.
func cutChallenge(s string) (scheme string, params map[string]string, rest string) {
	s = strings.TrimLeft(s, " \t,")
	scheme, s = cutToken(s)
	params = map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t,")
		name, after := cutToken(s)
		value, ok := strings.CutPrefix(strings.TrimLeft(after, " \t"), "=")
		if name == "" || !ok {
			if name == "" {
				s = "" // neither a parameter nor a scheme
			}
			return scheme, params, s // the next challenge
		}
		value = strings.TrimLeft(value, " \t")
		if strings.HasPrefix(value, `"`) {
			value, s = cutQuoted(value[1:])
		} else if value, s = cutToken(value); value == "" {
			return scheme, params, "" // a token68, or no field of this kind
		}
		params[strings.ToLower(name)] = value
	}
}

// cutToken takes a token (RFC 9110 section 5.6.2) off s.
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:]
}

// cutQuoted takes the rest of a quoted string (RFC 9110 section 5.6.4), of which
// the opening quote is gone.
func cutQuoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
