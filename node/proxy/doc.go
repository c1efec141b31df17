// Package proxy is the HTTP faces of a node, all on one port: a forward proxy
// (absolute-form requests), a tunnel (CONNECT), a gateway for tools without
// proxy settings (/url/https://host/path) and a mirror of registries (/v2/…, the
// pull category of the OCI distribution specification). GET and HEAD requests that a shared
// cache may answer are read through the swarm, by way of an Opener; all else
// streams to and from the origin untouched but for hop-by-hop fields and Via.
//
// What a client can rely on:
//
//   - No error of a peer or of the origin is ever delivered as content. Before
//     the first byte an error is a status with a short text; after it the
//     response is cut short, so that its length does not add up.
//   - Ranges (RFC 9110 section 14) are answered 206, on GET alone: several as
//     multipart/byteranges, of which those that overlap or nearly touch become
//     one. More than 64 of them, unknown units and malformed fields are ignored,
//     which the RFC allows: the answer is the whole file.
//   - The origin's header fields come along, but for those of its connection.
//     What Cache-Control asks of a shared cache is kept, on both sides (RFC 9111
//     section 5.2): a client that wants a fresh answer costs the origin a
//     validation, not the file. A request that may change a file makes this node
//     ask before it uses what it knows of it.
//   - P2pnode-Source says where the first byte came from: local, peer or
//     origin. A response that did not go through the swarm has no such field.
//   - The trailer P2pnode-Source-Bytes (local=…,peer=…,origin=…) has the sum.
//     HTTP/1.1 can carry a trailer only in place of Content-Length, which most
//     clients would rather have, so there it is sent only to those who ask
//     with "TE: trailers"; their responses are chunked. On HTTP/2 both are sent.
//   - On the gateway a redirect stays on the gateway, so that a relative
//     Location leads somewhere; but one to another host, after a request with
//     Authorization or Cookie, is left as it is: the client must see that the
//     host changed, or it would send its credentials there.
//
// On the mirror:
//
//   - What a SHA-256 digest names is read through the swarm, whose copy is what
//     its registry gives to anybody. A repository that refuses anonymous clients
//     passes through uncached with what the client sends, and is not tried again
//     for a minute.
//   - A tag is resolved by its registry each time, by HEAD and with the client's
//     own credentials. Where the registry cannot be reached or is over its
//     limits, anonymous clients get what the tag was when it last answered.
//   - Clients without credentials get what an anonymous token opens without
//     fetching one; else they get the registry's own challenge. A token is got of
//     the registry's host, as the client could, and of all others only where a
//     remote client could: a registry does not choose whom this machine asks.
//   - Errors have the specification's JSON form, with the same texts.
//
// A CONNECT is a tunnel, in which nothing is seen, unless Interception lists its
// host. Then the proxy is that host to its client, with a certificate of its own
// authority, over HTTP/2 or HTTP/1.1; a request within for another host is
// answered 421 (RFC 9110 section 15.5.20), and all that is said here of requests
// for https URLs holds for the others. The origin's certificate is verified by
// whoever asks the origin.
//
// Pages of other sites must not reach through a browser what the browser's
// user can reach: the gateway and the mirror refuse requests that a browser
// marks as coming from another site, sandbox what they return, and treat a
// loopback client that names the node by anything but localhost or an address
// as remote (DNS rebinding).
//
// Rejected: http.ServeMux, which cleans paths and redirects; and
// http.ServeContent, which turns an error of the first read into a 200, and
// bytes=-0 into a malformed 206.
package proxy
