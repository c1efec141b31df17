// Package link gives the hosts of one process an uplink of limited rate and
// delay, in user space: for runners that cannot have the kernel shape links.
//
// It shapes what leaves, as Testground's sidecar does: the TCP connections that
// libp2p makes and takes (Link.Option puts the link between TCP and TLS), and
// those of a listener (Link.Listener). All connections of a link share its rate
// and take turns, 16 KiB each. Connections between two hosts on the same link
// are a local network: neither limited nor delayed.
//
// What it does not do: it loses no packets and limits nothing that comes in.
// TCP's own handshake and the first exchange of a libp2p connection, which
// agrees on TLS, are not delayed: a new connection costs two round trips less
// than on a real link. QUIC does not pass through it.
//
// Cut takes the cable out: connections stay open, and nothing moves any more.
package link
