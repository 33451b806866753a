// Package kafka speaks Kafka's wire protocol: one file an API key.
//
// versions.go is the table of what is served. A request's header is parsed in header.go. Produce is decoded and answered by hand (produce.go), since it is the hot path: nothing is allocated for a request
// whose topics exist. Every other key is decoded by kmsg and has a method of Broker that blocks until it has its answer: the caller does not call it on an IO goroutine. errors.go is the one place where the errors of the
// packages below become Kafka's codes.
package kafka
