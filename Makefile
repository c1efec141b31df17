# Checks that take longer than .ci/run has time for.

FUZZTIME ?= 10m
CHAOS ?= 10m

.PHONY: ci fuzz chaos nat-table

ci:
	.ci/run

# Every fuzz target, or those that match FUZZ, for FUZZTIME, a processor each.
fuzz:
	FUZZTIME=$(FUZZTIME) .ci/run fuzz

# Real processes, killed, stopped, cut off, their clocks set, for CHAOS; as root also
# with a full disk.
chaos:
	CHAOS=$(CHAOS) .ci/run chaos

# Every pair of places behind NAT, as root; writes the table of docs/nat.md.
nat-table:
	P2PNODE_LAB=all go test ./internal/netlab -run '^TestPairs$$' -count=1 -timeout 60m -v
