package node_test

import (
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

func rfc9111() []requirement {
	warm := exchange{origin: -1, body: "all"}
	// local is an answer that costs the origin nothing; asked one that costs it a
	// validation.
	local, asked := exchange{body: "all"}, exchange{body: "all", origin: 1}
	down := p2ptest.Fault{Status: 503}
	passes := []exchange{{origin: -1, body: "all", want: "P2pnode-Source:"}, {origin: 1, body: "all", want: "P2pnode-Source:\nAge:"}}
	second := func(o *p2ptest.Object) { o.ETag, o.Data = `"two"`, p2ptest.Bytes(99, rfcSize) }
	withHeader := func(s string) func(*p2ptest.Object) { return func(o *p2ptest.Object) { o.Header = lines(s) } }
	return []requirement{
		{"9111-3", "no-store is not stored", "Cache-Control: no-store", nil, passes},
		{"9111-3", "private is not stored by a shared cache", "Cache-Control: private, max-age=600", nil, passes},
		{"9111-3", "what sets cookies is not shared", "Set-Cookie: a=b", nil, passes},
		{"9111-3", "what cannot be validated is not stored", "", func(o *p2ptest.Object) { o.ETag, o.LastModified = "", time.Time{} }, passes},
		{"9111-3.1", "all fields are stored but those of a connection", "X-Unknown: 1\nContent-Language: de\nServer: x/1\nConnection: X-Hop\nX-Hop: 1\n", nil, []exchange{
			warm, {body: "all", want: "X-Unknown: 1\nContent-Language: de\nServer: x/1\nX-Hop:"},
		}},
		{"9111-3.2", "a validation brings new fields", "Cache-Control: max-age=600\nX-New: 1", nil, []exchange{
			warm, {ask: "Cache-Control: no-cache", body: "all", origin: 1, change: withHeader("Cache-Control: max-age=60\nX-New: 2"), want: "X-New: 2\nCache-Control: max-age=60"},
			{body: "all", want: "X-New: 2\nCache-Control: max-age=60"},
		}},
		{"9111-3.3", "parts of one generation are never combined with those of another", "", nil, []exchange{
			{ask: "Range: bytes=0-9", status: 206, body: "0-9", origin: -1},
			{ask: "Range: bytes=90000-99999\nCache-Control: no-cache", status: 206, body: "90000-99999", origin: -1, change: second, want: "ETag: \"two\""},
		}},
		{"9111-3.5", "what is used again was given to a request without Authorization", "Cache-Control: max-age=600", nil, []exchange{
			// With it, to see if it is good, without, to see if it matters, and for the bytes.
			{ask: "Authorization: Basic eA==", body: "all", origin: 3, want: "P2pnode-Source: origin"}, {ask: "Authorization: Basic eA==", body: "all"},
		}},
		{"9111-4", "Age where an answer is used again", "Cache-Control: max-age=600\nAge: 100", nil, []exchange{warm, {body: "all", want: "Age: 100"}}},
		{"9111-4.1", "Vary beyond Accept-Encoding is not answered from what is held", "Vary: User-Agent\nCache-Control: max-age=600", nil, passes},
		{"9111-4.1", "Vary: * neither", "Vary: *\nCache-Control: max-age=600", nil, passes},
		{"9111-4.2.1", "s-maxage before max-age before Expires", "Cache-Control: max-age=1, s-maxage=600\nExpires: 0\nAge: 50", nil, []exchange{warm, local}},
		{"9111-4.2.1", "max-age before Expires", "Cache-Control: max-age=600\nExpires: 0\nAge: 50", nil, []exchange{warm, local}},
		{"9111-4.2.1", "a Cache-Control that cannot be read is stale", "Cache-Control: max-age=a", nil, []exchange{warm, asked}},
		{"9111-4.2.2", "heuristics only where nothing is said", "Cache-Control: max-age=0", nil, []exchange{warm, asked, asked}},
		{"9111-4.2.3", "the age of a cache before the origin counts", "Cache-Control: max-age=600\nAge: 600", nil, []exchange{warm, asked}},
		{"9111-4.2.4", "nothing stale unless the origin cannot be reached", "Cache-Control: max-age=10\nAge: 20", nil, []exchange{
			warm, asked, {body: "all", origin: -1, fault: down, want: "Age: 20"},
		}},
		{"9111-4.2.4", "never stale with must-revalidate", "Cache-Control: max-age=0, must-revalidate", nil, []exchange{warm, {status: 503, origin: -1, fault: down}}},
		{"9111-4.3.2", "a client's conditions are answered after the cache's own", "Cache-Control: max-age=0", nil, []exchange{
			warm, {ask: "If-None-Match: " + rfcTag, status: 304, origin: 1}, {ask: "If-None-Match: " + rfcTag, body: "all", origin: -1, change: second, want: "ETag: \"two\""},
		}},
		{"9111-4.3.4", "a validated file is current again", "Cache-Control: max-age=600\nAge: 700", nil, []exchange{
			warm, {body: "all", origin: 1, change: withHeader("Cache-Control: max-age=600"), want: "Age: 0"}, local,
		}},
		{"9111-4.4", "an unsafe method makes what is held void", "Cache-Control: max-age=600", nil, []exchange{
			warm, local, {method: "POST", status: 405, origin: 1}, local, // an error changes nothing
			{method: "PUT", origin: 1, fault: p2ptest.Fault{Status: 201}, status: 201}, asked, local,
			{method: "M-SEARCH", origin: 1, fault: p2ptest.Fault{Status: 202}, status: 202}, asked, local,
		}},
		{"9111-5.1", "of several Ages the first counts", "Cache-Control: max-age=600\nAge: 700, 0", nil, []exchange{warm, asked}},
		{"9111-5.1", "an Age that is no number is ignored", "Cache-Control: max-age=600\nAge: -700", nil, []exchange{warm, local}},
		{"9111-5.2.1.1", "max-age of a request", "Cache-Control: max-age=600\nAge: 100", nil, []exchange{
			warm, {ask: "Cache-Control: max-age=200", body: "all"}, {ask: "Cache-Control: max-age=50", body: "all", origin: 1},
		}},
		{"9111-5.2.1.2", "max-stale", "Cache-Control: max-age=10\nAge: 100", nil, []exchange{
			warm, {ask: "Cache-Control: max-stale=200", body: "all"}, {ask: "Cache-Control: max-stale", body: "all"}, {ask: "Cache-Control: max-stale=50", body: "all", origin: 1},
		}},
		{"9111-5.2.1.3", "min-fresh", "Cache-Control: max-age=600\nAge: 100", nil, []exchange{
			warm, {ask: "Cache-Control: min-fresh=400", body: "all"}, {ask: "Cache-Control: min-fresh=550", body: "all", origin: 1},
		}},
		{"9111-5.2.1.4", "no-cache asks the origin", "Cache-Control: max-age=600, immutable", nil, []exchange{
			warm, local, {ask: "Cache-Control: no-cache", body: "all", origin: 1}, {ask: "Cache-Control: max-age=0", body: "all", origin: 1}, {ask: "Pragma: no-cache", body: "all", origin: 1},
			{ask: "Pragma: no-cache\nCache-Control: max-age=600", body: "all"},
		}},
		{"9111-5.2.1.5", "no-store of a request", "", nil, []exchange{
			{ask: "Cache-Control: no-store", body: "all", origin: 1, want: "P2pnode-Source:"}, {ask: "Cache-Control: only-if-cached", status: 504},
		}},
		{"9111-5.2.1.7", "only-if-cached asks nobody", "Cache-Control: max-age=600", nil, []exchange{
			{ask: "Cache-Control: only-if-cached", status: 504}, warm, {ask: "Cache-Control: only-if-cached", body: "all"},
			{ask: "Cache-Control: only-if-cached\nRange: bytes=5-9", status: 206, body: "5-9"}, {ask: "Cache-Control: only-if-cached\nAuthorization: x", body: "all"},
		}},
		{"9111-5.2.1.7", "only-if-cached asks nobody whether credentials are good", "Cache-Control: max-age=600", nil, []exchange{
			{ask: "Cache-Control: only-if-cached\nAuthorization: x", status: 504},
		}},
		{"9111-5.2.1.7", "only-if-cached gives nothing stale", "Cache-Control: max-age=0", nil, []exchange{warm, {ask: "Cache-Control: only-if-cached", status: 504}}},
		{"9111-5.2.2.4", "no-cache is not used without validation", "Cache-Control: no-cache", nil, passes},
		{"9111-5.2.2.8", "proxy-revalidate", "Cache-Control: max-age=0, proxy-revalidate", nil, []exchange{warm, {status: 503, origin: -1, fault: down}}},
		{"9111-5.2.2.10", "s-maxage has proxy-revalidate in it", "Cache-Control: s-maxage=0", nil, []exchange{warm, {status: 503, origin: -1, fault: down}}},
		{"9111-5.2.3", "directives that are not known are ignored", "Cache-Control: max-age=600, x-new=\"a, no-store\", other", nil, []exchange{warm, {ask: "Cache-Control: x-new", body: "all"}}},
		{"9111-5.3", "Expires counts from Date", "Expires: Mon, 23 Nov 2026 10:10:00 GMT\nDate: Mon, 23 Nov 2026 10:00:00 GMT", nil, []exchange{warm, local}},
		{"9111-5.3", "an Expires that is no date is past", "Expires: 0", nil, []exchange{warm, asked}},
		{"5861-4", "stale-if-error ends", "Cache-Control: max-age=10, stale-if-error=5\nAge: 20", nil, []exchange{warm, {status: 503, origin: -1, fault: down}}},
	}
}
