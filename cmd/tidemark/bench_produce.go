package main

// BenchProduceCmd is `tidemark bench produce`.
type BenchProduceCmd struct {
	BenchLoad
	InFlight int     `help:"Requests without an answer on each connection, at most." default:"1"`
	Rate     *string `help:"Send at this rate instead of as fast as answers come: 20000/s, of all connections together." placeholder:"N/s"`
}

// Help is kong's detailed help.
func (BenchProduceCmd) Help() string {
	return `A closed loop: each connection keeps --in-flight requests unanswered, one batch each, and sends a new one for every answer. Requests are
encoded beforehand, so the client costs little; it shares the machine with the broker if both run on one. Only what is answered between the
end of the warm-up and the end of the measurement counts. MB are 10^6 bytes of record values.

With --rate requests are due at fixed times, and their latency is counted from then: see "tidemark bench latency --help".

One-way requests are never answered: the client sends as fast as TCP takes them, there is no latency, and a request counts when the
kernel has it.

Any broker that speaks Kafka's protocol can be measured: with --acks=-1, since it knows no levels.

Levels:

` + qosHelp() + `
Examples:

    tidemark bench produce
    tidemark bench produce --connections 8 --in-flight 64 --json
    tidemark bench produce --connections 8 --in-flight 64 --null
    tidemark bench produce --connections 8 --in-flight 5 --record-bytes 1000 --records-per-batch 100 --qos all
    tidemark bench produce --bootstrap kafka.example:9092 --acks=-1 --plot kafka.svg`
}

// Run measures and prints.
func (c *BenchProduceCmd) Run(e *env) (err error) {
	c.inFlight = c.InFlight
	if c.Rate != nil {
		if c.rate, err = parseRate("--rate", *c.Rate); err != nil {
			return err
		}
	}
	return c.measure(e, "produce")
}
