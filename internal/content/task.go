package content

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"golang.org/x/net/idna"
)

// taskLabel separates task IDs from every other use of SHA-256 in the swarm
// and names the version of the canonical form.
const taskLabel = "p2pnode/task/1"

// TaskID names one file in the swarm: SHA-256 over the version label, the
// filter's version and the canonical URL, or the digest of a digest-addressed
// blob. It is 32 bytes on the wire.
type TaskID [sha256.Size]byte

// String returns the ID as 64 lower-case hexadecimal digits.
func (id TaskID) String() string { return hex.EncodeToString(id[:]) }

// CID returns the key under which providers of the task are found in the DHT:
// CIDv1, codec raw, a sha2-256 multihash whose digest is the task ID itself.
func (id TaskID) CID() cid.Cid {
	mh, err := multihash.Encode(id[:], multihash.SHA2_256)
	if err != nil {
		panic("content: encode multihash: " + err.Error()) // 32 bytes always fit
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// ParseTaskID reads the form that String writes.
func ParseTaskID(s string) (TaskID, error) {
	var id TaskID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("task ID %q: want %d hexadecimal digits", s, 2*len(id))
	}
	return TaskID(b), nil
}

// TaskIDFromBytes reads a task ID off the wire.
func TaskIDFromBytes(b []byte) (TaskID, error) {
	if len(b) != len(TaskID{}) {
		return TaskID{}, fmt.Errorf("task ID of %d bytes: want %d", len(b), len(TaskID{}))
	}
	return TaskID(b), nil
}

// Task is one large immutable file of an origin.
type Task struct {
	ID TaskID
	// URL is the canonical task URL. The URL that the origin is asked may
	// carry more, such as a signature in its query.
	URL string
	// Digest is a digest in the form of IsDigest where the URL names the content
	// by it, and empty otherwise.
	Digest string
	// Secret is the name of a query parameter of URL that seems to be a
	// credential, though of none of the forms that SplitSignature knows; empty for
	// none. Such a file is not for a shared cache: its name would tell the secret.
	Secret string
	// FilterVersion is that of the Filter by which the file was named.
	FilterVersion uint32
}

// ErrURL is wrapped by every refusal of NewTask, so that a face can answer 400.
var ErrURL = errors.New("unusable URL")

var digestPath = regexp.MustCompile(`^/v2/.+/(blobs|manifests)/(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// NewTask names the file behind an absolute http or https URL.
//
// The canonical form lower-cases scheme and host, drops the default port, the
// fragment, a signature (see SplitSignature) and the filtered query parameters,
// writes percent triplets in upper
// case and an empty path as "/"; all other bytes of path and query stay as they
// are (RFC 3986 section 6.2.2 without dot-segment removal, which servers do not
// all agree on). User information is refused, as are hosts that end in a number
// but are no dotted-quad IPv4 address, since clients read those differently.
//
// A path /v2/<name>/blobs/<digest> (see IsDigest) is a registry blob: its digest alone is
// the name, so that one layer in many repositories is one task. So is a manifest
// below /manifests/, which has a name apart from a blob of the same bytes: it
// has a type.
func NewTask(raw string, f Filter) (Task, error) {
	u, err := url.Parse(raw)
	if err != nil {
		var bad *url.Error
		if errors.As(err, &bad) { // which shows the URL, and it may hold a secret
			err = bad.Err
		}
		return Task{}, fmt.Errorf("%w: %w", ErrURL, err)
	}
	scheme := strings.ToLower(u.Scheme)
	if scheme != "http" && scheme != "https" {
		return Task{}, fmt.Errorf("%w: scheme %q is neither http:// nor https://", ErrURL, u.Scheme)
	}
	if u.User != nil {
		return Task{}, fmt.Errorf("%w: user information before the host; send an Authorization header instead", ErrURL)
	}
	host, err := canonicalHost(u.Hostname())
	if err != nil {
		return Task{}, err
	}
	port, err := canonicalPort(scheme, u.Port())
	if err != nil {
		return Task{}, err
	}
	path := upperTriplets(u.EscapedPath())
	if path == "" {
		path = "/"
	}
	canonical := scheme + "://" + host + port + path
	query, _ := splitQuery(strings.ReplaceAll(u.RawQuery, " ", "%20"))
	query = filterQuery(query, f.Query)
	if query != "" {
		canonical += "?" + upperTriplets(query)
	}
	t := Task{URL: canonical, Secret: secretIn(query), FilterVersion: f.Version}
	name := canonical
	if m := digestPath.FindStringSubmatch(path); m != nil && query == "" {
		t.Digest = m[2]
		name = t.Digest
		if m[1] == "manifests" {
			name = "manifest " + name
		}
	}
	h := sha256.New()
	h.Write([]byte(taskLabel))
	var version [4]byte
	binary.BigEndian.PutUint32(version[:], f.Version)
	h.Write(version[:])
	h.Write([]byte(name))
	h.Sum(t.ID[:0])
	return t, nil
}

var hostProfile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(false))

// maxHost is the longest name that DNS has (RFC 1035 section 2.3.4), with the dot
// behind it. Of longer ones IDNA does not take back what it made of them.
const maxHost = 254

// canonicalHost follows the WHATWG URL standard's host parser: IDNA to ASCII,
// lower case, IPv6 in its shortest form. What it would read as an unusual IPv4
// form (octal, hexadecimal, fewer than four parts) is refused.
func canonicalHost(host string) (string, error) {
	if host == "" {
		return "", fmt.Errorf("%w: no host", ErrURL)
	}
	if strings.Contains(host, ":") {
		a, err := netip.ParseAddr(host)
		if err != nil || a.Zone() != "" {
			return "", fmt.Errorf("%w: bad IPv6 address %q", ErrURL, host)
		}
		return "[" + a.String() + "]", nil
	}
	if !utf8.ValidString(host) {
		return "", fmt.Errorf("%w: bad host %q", ErrURL, host)
	}
	ascii, err := hostProfile.ToASCII(host)
	if len(ascii) > maxHost {
		return "", fmt.Errorf("%w: host of %d bytes", ErrURL, len(ascii))
	}
	if err != nil || ascii == "" || strings.ContainsAny(ascii, " #/<>?@[\\]^|%") {
		return "", fmt.Errorf("%w: bad host %q", ErrURL, host)
	}
	labels := strings.Split(strings.TrimSuffix(ascii, "."), ".")
	last := labels[len(labels)-1]
	if numeric(last) {
		a, err := netip.ParseAddr(ascii)
		if err != nil {
			return "", fmt.Errorf("%w: host %q ends in a number but is no IPv4 address", ErrURL, host)
		}
		return a.String(), nil
	}
	return ascii, nil
}

// numeric reports whether a host's last label makes it an IPv4 address in the
// eyes of the WHATWG: decimal digits, or 0x and hexadecimal digits.
func numeric(label string) bool {
	if hexDigits, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hexDigits, "0123456789abcdef") == ""
	}
	return label != "" && strings.Trim(label, "0123456789") == ""
}

func canonicalPort(scheme, port string) (string, error) {
	if port == "" {
		return "", nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%w: bad port %q", ErrURL, port)
	}
	if scheme == "http" && n == 80 || scheme == "https" && n == 443 {
		return "", nil
	}
	return ":" + strconv.FormatUint(n, 10), nil
}

// filterQuery removes the named parameters and keeps the bytes of the others.
func filterQuery(query string, names []string) string {
	if query == "" || len(names) == 0 {
		return query
	}
	kept := strings.Split(query, "&")
	kept = slices.DeleteFunc(kept, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(names, name)
	})
	return strings.Join(kept, "&")
}

func upperTriplets(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' && isHex(b[i+1]) && isHex(b[i+2]) {
			b[i+1], b[i+2] = upper(b[i+1]), upper(b[i+2])
			i += 2
		}
	}
	return string(b)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 'a' + 'A'
	}
	return c
}
