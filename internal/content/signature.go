package content

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// signatureForm is one way in which a URL carries leave to read a file. All
// names are in lower case.
type signatureForm struct {
	// marks are the parameters that must all be there, and any those of which one
	// must.
	marks, any []string
	// names are those that belong to the signature, besides these.
	names []string
}

// signatureForms are those of the large object stores: S3 (Signature Version 4
// and 2), Google Cloud Storage (V4 and V2), CloudFront, Alibaba OSS and Azure's
// shared access signatures. What chooses content, such as versionId or
// response-content-type, is not among the names.
var signatureForms = []signatureForm{
	{
		marks: []string{"x-amz-signature"},
		names: []string{"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "x-amz-security-token", "x-amz-content-sha256"},
	},
	{
		marks: []string{"x-goog-signature"},
		names: []string{"x-goog-algorithm", "x-goog-credential", "x-goog-date", "x-goog-expires", "x-goog-signedheaders"},
	},
	{
		marks: []string{"signature"}, any: []string{"awsaccesskeyid", "googleaccessid", "key-pair-id", "ossaccesskeyid"},
		names: []string{"expires", "policy", "x-amz-security-token", "security-token"},
	},
	{
		marks: []string{"sig", "sv"}, any: []string{"se", "si"},
		names: []string{"sp", "sr", "st", "ss", "srt", "spr", "sip", "sdd", "skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid", "ses"},
	},
}

// SplitSignature takes the signature out of a URL, byte for byte otherwise. It
// reports false, with the URL as it is, where there is none. A signature lets
// its holder read what the rest of the URL names: it is a credential, and no
// part of a file's name.
func SplitSignature(raw string) (bare string, signed bool) {
	whole, fragment, ok := strings.Cut(raw, "#") // which may have a ? of its own
	if ok {
		fragment = "#" + fragment
	}
	head, query, _ := strings.Cut(whole, "?")
	kept, signed := splitQuery(query)
	if !signed {
		return raw, false
	}
	if kept != "" {
		head += "?" + kept
	}
	return head + fragment, true
}

// splitQuery takes a signature out of a query.
func splitQuery(query string) (rest string, signed bool) {
	if query == "" {
		return query, false
	}
	pairs := strings.Split(query, "&")
	names := make([]string, len(pairs))
	for i, pair := range pairs {
		names[i] = parameter(pair)
	}
	has := func(name string) bool { return slices.Contains(names, name) }
	drop := make([]bool, len(pairs))
	for _, form := range signatureForms {
		if slices.ContainsFunc(form.marks, func(s string) bool { return !has(s) }) || len(form.any) > 0 && !slices.ContainsFunc(form.any, has) {
			continue
		}
		signed = true
		for i, name := range names {
			drop[i] = drop[i] || slices.Contains(form.marks, name) || slices.Contains(form.any, name) || slices.Contains(form.names, name)
		}
	}
	if !signed {
		return query, false
	}
	kept := pairs[:0]
	for i, pair := range pairs {
		if !drop[i] {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&"), true
}

// parameter returns the name of a parameter, decoded and in lower case.
func parameter(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	return strings.ToLower(name)
}

// secretNames matches the names of parameters that let somebody in: those of the
// forms above, and what others call theirs.
var secretNames = regexp.MustCompile(`(?i)^(x-(amz|goog|oss|cos)-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|signature|sig|sign|token|.*[-_]token|jwt|auth|authorization|api[-_]?key|key|password|secret)$`)

// IsSecretParameter reports whether a query parameter of that name is likely to
// be a credential.
func IsSecretParameter(name string) bool { return secretNames.MatchString(name) }

// secretIn returns the first name in a query that is a secret's, "" for none.
func secretIn(query string) string {
	if query == "" {
		return ""
	}
	for pair := range strings.SplitSeq(query, "&") {
		if name := parameter(pair); IsSecretParameter(name) {
			return name
		}
	}
	return ""
}
