package qos

import "fmt"

// AcksBase is added to a level's code to name it outright in a Produce request's acks.
const AcksBase = 100

// AcksMap says which level Kafka's own acks values ask for. acks=0 is always ONE_WAY.
type AcksMap struct {
	One Level // acks=1; default Persistence
	All Level // acks=−1; default All
}

// DefaultAcks is the map of a server that was told nothing else.
var DefaultAcks = AcksMap{One: Persistence, All: All}

// Validate refuses a map that would leave an answered request without a mark to wait for.
func (m AcksMap) Validate() error {
	for name, l := range map[string]Level{"qos.acks_1": m.One, "qos.acks_all": m.All} {
		if int(l) >= len(levels) || l == OneWay {
			return fmt.Errorf("%s: %s: a request with acks 1 or -1 is answered, so its level is one of receive, persistence, replication, all", name, l)
		}
	}
	return nil
}

// Level is the level that a request's acks asks for; false when acks is none of −1, 0, 1, 101–104.
func (m AcksMap) Level(acks int16) (Level, bool) {
	switch {
	case acks == 0:
		return OneWay, true
	case acks == 1:
		return m.One, true
	case acks == -1:
		return m.All, true
	case acks > AcksBase && acks <= AcksBase+int16(All):
		return Level(acks - AcksBase), true
	}
	return 0, false
}
