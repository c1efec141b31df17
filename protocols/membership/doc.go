// Package membership holds the certificates of a closed swarm and the protocol
// by which two peers show them to one another, and by which a peer gets one.
//
// The swarm key, which its operator keeps, signs the certificates of
// supernodes; a supernode signs those of readers and seeds. What a peer may do
// is the role in its certificate and nothing else. See SPEC.md for the wire.
//
// The package knows signatures and messages. Who is let in on what connection
// is the business of node/host, who gets a certificate that of an Issuer.
//
// Rejected:
//   - Certificates in TLS: a renewed one would need a new host.
//   - Sending the join secret: a supernode, or whoever poses as one, could hand
//     it on. It is a key, and the joining peer signs its own ID with it.
//   - Macaroons and JSON web tokens: more forms than one needs, all of them to
//     be parsed before a signature is checked.
//   - libp2p's signed envelopes: they carry the signer's key in each message,
//     which the reader knows already.
package membership
