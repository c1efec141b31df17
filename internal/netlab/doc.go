// Package netlab makes small internets of Linux network namespaces for tests: a
// public segment, NAT boxes of several kinds with hosts behind them, links with
// a rate. The real binary runs in the namespaces. It needs root, ip, iptables
// and tc; Start says which of them is missing.
//
//	public segment 11.11.0.0/16, a bridge in a namespace of its own
//	  |- hosts with a public address
//	  '- NAT boxes, each with a LAN 10.N.0.0/24 behind it, the box at .1
//
// 11.11.0.0/16 is used since go-libp2p counts as public no address of RFC 1918,
// 100.64.0.0/10 or the documentation ranges. No namespace has a route out of the
// lab, so nothing leaves it. The segment passes no multicast: it stands for the
// Internet. A LAN does.
//
// A NAT box drops what comes unasked for: if it answered, the answer would end
// the peer's half of a hole punch. A lab is gone when its test is; what a killed
// test left is removed by the next Start.
//
// Links are limited by tbf, which every kernel has; delay (netem) is not offered.
package netlab
