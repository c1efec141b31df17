// Package host makes the libp2p host that a node or a supernode talks through:
// its identity, transports, limits, private DHT and GossipSub, and the
// connections it keeps.
//
// Transports are TCP with TLS 1.3 and QUIC, chosen at the dial by address: TCP
// first on private and loopback addresses, where it moves three times the bytes
// for the same CPU, QUIC first elsewhere, where it saves two round trips and
// punches holes.
//
// A QUIC connection carries 256 streams of one side at a time, a constant of
// libp2p: NewStream waits for one to end, at most 10 s. TCP has no such bound.
//
// Connections die without a word when one of the two ends moves or sleeps. Run
// closes those from addresses that the machine has no longer; Doubt, a peer that
// comes anew, and a sleep have those pinged that may be dead, and closed where no
// answer comes. Peers that the host joins through are dialled anew after a move
// even where QUIC carried the connection over: they say from where it is seen.
//
// A host with a Gate is one of a closed swarm: streams pass once both sides have
// shown their certificates, see Gate. Of a peer that has not, identify, ping,
// membership and, inbound, AutoNAT v2's dial-back pass. All else needs
// membership, end to end: relay reservations and circuits, hole punching over a
// relayed connection (which has a hello of its own), the DHT, GossipSub.
//
// Rejected:
//   - Noise, WebSocket, WebTransport, WebRTC: slower or for browsers.
//   - libp2p's private-network key: it turns QUIC off.
//   - libp2p's default resource limits: they refuse most of 1,000 concurrent
//     streams between two hosts, and the ninth node behind one NAT address.
//   - SO_REUSEPORT on TCP listeners: two processes then share a port unnoticed,
//     and a port in use is no error. Hosts that punch holes need it, since they dial
//     from the port that listens: they try without it first.
//   - libp2p's AutoRelay: it starts on AutoNAT v1's word, takes a relay that
//     refused for lost for an hour, and asks for relays twice a minute.
//   - libp2p's one attempt at a hole for each relayed connection.
//   - Four peers to believe an outside address (libp2p's default): small swarms
//     have one supernode. AutoNAT tests the address all the same.
package host
