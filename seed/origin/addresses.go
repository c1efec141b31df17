package origin

import "net/netip"

type special struct {
	prefix netip.Prefix
	what   string
}

// specials are the ranges that no origin on the Internet has, from the IANA
// special-purpose registries (RFC 6890), and addresses at which clouds serve
// the credentials of their machines. More precise entries come first.
var specials = []special{
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud metadata address"}, // Azure
	{netip.MustParsePrefix("169.254.169.254/32"), "a cloud metadata address"},
	{netip.MustParsePrefix("169.254.170.2/32"), "a cloud metadata address"}, // Amazon ECS
	{netip.MustParsePrefix("100.100.100.200/32"), "a cloud metadata address"},
	{netip.MustParsePrefix("192.0.0.192/32"), "a cloud metadata address"}, // Oracle
	{netip.MustParsePrefix("fd00:ec2::/32"), "a cloud metadata address"},  // Amazon

	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},

	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("2001::/23"), "reserved"}, // Teredo, benchmarks, ORCHID
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("2002::/16"), "6to4"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
}

var (
	globalUnicast6 = netip.MustParsePrefix("2000::/3")
	nat64          = netip.MustParsePrefix("64:ff9b::/96")
)

// notPublic says what keeps an address from being a public unicast one; it is
// empty where nothing does. Of IPv6 all but global unicast is kept out, and
// addresses of the NAT64 prefix, which embedded takes care of.
func notPublic(a netip.Addr) string {
	for _, s := range specials {
		if s.prefix.Contains(a) {
			return s.what
		}
	}
	if !a.IsValid() || a.Is6() && !globalUnicast6.Contains(a) && !nat64.Contains(a) {
		return "not global unicast"
	}
	return ""
}

// embedded returns the IPv4 address that a NAT64 gateway goes to for a
// (RFC 6052): on IPv6-only networks all of IPv4 is reached so, and the gateway
// may reach private addresses too.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !nat64.Contains(a) {
		return netip.Addr{}, false
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:])), true
}
