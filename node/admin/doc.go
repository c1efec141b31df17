// Package admin is the daemon's HTTP face for operators and for the other
// commands: health, readiness, metrics, profiles and status as JSON, a dashboard
// that shows them to a browser at /, and the orders to bring files in before
// anybody asks for them.
//
// POST /v1/prefetch takes {"urls": ["https://…", …], "range": "A-B", "where":
// "here" or "seeds", "pin": true}, where all but the urls may be left out. POST
// /v1/import?url=…&digest=…&etag=…&last_modified=…&pin=true takes a file, with
// its length. Both answer with a line of JSON for each Event, as it happens, and
// end their work when the client leaves; an import that fails before it reads
// the body answers 422. POST /v1/unpin takes {"urls": […], "range": "A-B"} and
// answers {"results": […]}, an Unpinned each.
//
// POST /v1/orders takes {"peer": ID, "order": "cordon", "drain" or ""} where a
// supernode runs; it answers 422 to what cannot be done.
//
// All else has no side effects: only GET and HEAD are served. It is meant for
// loopback and for scrapers of the same machine or cluster, has no
// authentication, and therefore defends itself against the browser of whoever
// runs it: a Host header that is neither a loopback name nor the address that
// was dialled is refused (DNS rebinding), no CORS header is ever sent, and
// requests that a foreign page makes in the background are refused, so that
// no web page can read the state of a node or start a profile on it. A POST
// must have a Content-Type that a form cannot send.
package admin
