package qos

import "testing"

func TestMarksOfLevels(t *testing.T) {
	want := map[Level]Marks{
		OneWay: 0, Receive: Written, Persistence: Written | Flushed,
		Replication: Written | Replicated, All: Written | Flushed | Replicated | Committed,
	}
	for _, l := range Levels() {
		if l.Marks() != want[l] {
			t.Errorf("%s waits for %05b, want %05b", l, l.Marks(), want[l])
		}
		if back, err := ParseLevel(l.String()); err != nil || back != l {
			t.Errorf("%s parses as %v, %v", l, back, err)
		}
	}
	if _, err := ParseLevel("strong"); err == nil {
		t.Error("a level that is none was parsed")
	}
}

func TestAcks(t *testing.T) {
	m := AcksMap{One: Receive, All: Replication}
	for acks := int16(-200); acks < 400; acks++ {
		l, ok := m.Level(acks)
		want, known := map[int16]Level{-1: Replication, 0: OneWay, 1: Receive, 101: Receive, 102: Persistence, 103: Replication, 104: All}[acks]
		if ok != known || (ok && l != want) {
			t.Errorf("acks %d: %s, %v; want %s, %v", acks, l, ok, want, known)
		}
	}
	if err := DefaultAcks.Validate(); err != nil {
		t.Error(err)
	}
	if (AcksMap{One: OneWay, All: All}).Validate() == nil {
		t.Error("acks=1 as one-way was taken")
	}
}
