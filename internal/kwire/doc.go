// Package kwire is a raw client of the Kafka wire protocol: one connection, one request at a time or many, nothing hidden.
//
// It is there because a full client (kgo) decides too much: it rewrites acks, picks versions, retries and reorders. The
// bench, the produce command and the test tools need the bytes as they say them. kmsg encodes and decodes the bodies;
// this package adds what is around them:
//
//	conn.go      dial, ApiVersions, request frames, response frames with a size cap, deadlines from a context
//	batch.go     record batch v2: build (CRC-32C, compression, producer id and sequence)
//	parse.go     record batch v2: check and unpack, for tests and tools
//
// A Conn has no goroutine of its own and never retries: an error of Send or Receive leaves it unusable, and the caller
// dials again.
package kwire
