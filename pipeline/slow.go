package pipeline

import (
	"time"

	"tidemark/qos"
)

// SlowRequest says that a request took longer than Options.SlowRequest, and where its time went.
type SlowRequest struct {
	Level    qos.Level
	ClientID string
	Topic    string
	Took     time.Duration             // from reading it to having the answer ready
	Stages   [stageCount]time.Duration // by Stage; those that its level does not have are zero
	Others   int64                     // that were slow since the event before, and had none
}

func (SlowRequest) event() {}

// slowRequests sends an event for slow requests, one in slowPause. Respond stage only.
type slowRequests struct {
	next   time.Duration // no event before
	others int64
}

const slowPause = time.Second

func (s *slowRequests) saw(p *Pipeline, k *timeRun, took, now time.Duration, parts [stageCount]time.Duration) {
	if now < s.next {
		s.others += k.n
		return
	}
	e := SlowRequest{Level: k.level, Took: took, Stages: parts, Others: s.others + k.n - 1}
	if k.labels != nil {
		e.ClientID, e.Topic = k.labels.ClientID, k.labels.Topic
	}
	s.next, s.others = now+slowPause, 0
	p.event(e)
}
