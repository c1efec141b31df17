// Package e2e tests the product as its users run it: real processes of the real
// command on loopback, an origin that counts what it sends.
package e2e
