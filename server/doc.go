// Package server is the endpoint: connections, sessions, ordered responses, and the admin listener.
//
// Two transports carry the same Session: gnet, whose event loops are the IO goroutines, and plain net, one goroutine a connection, for tests and for TLS later (transport.go, transport_gnet.go,
// transport_net.go). A transport hands what it read to Session.Data and sends what Session.flush and sendNow hand out. It knows no protocol.
//
// A Session (session.go, inbound.go, outbound.go) cuts the bytes into requests, owns them (buffer.go), decodes and submits Produce on the IO goroutine, answers every other request one after the other on a goroutine of the connection (call.go), and sends
// responses in the order of the requests. Its budget bounds what a connection may have in flight: past it the connection is not read.
package server
