package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/pprof/profile"

	"tidemark/pipeline"
)

// The pipeline profile, in pprof's own format: its samples are requests' time. A sample's stack is a stage on top of its level, its values are a count and nanoseconds, its labels are client_id, topic and level. So `go tool pprof`
// draws where the time of an acknowledgement goes.

// ProfileRow is all requests at one level in one stage. A profile carries its rows, when they are asked for, as comments, one JSON object each, since pprof's format has no quantiles.
type ProfileRow struct {
	Level    string        `json:"level"`
	Stage    string        `json:"stage"`
	Requests int64         `json:"requests"`
	Time     time.Duration `json:"time_ns"` // of all of them
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
}

const profileSeconds = 10

// ProfileSecondsMax is the longest that a profile may take.
const ProfileSecondsMax = 600

// pipelineProfile is GET /debug/pprof/pipeline?seconds=N&client=ID&table=1. With table the profile has its rows as comments.
func (a *Admin) pipelineProfile(w http.ResponseWriter, r *http.Request) {
	s := a.server.Load()
	if s == nil {
		http.Error(w, ErrStarting.Error(), http.StatusServiceUnavailable)
		return
	}
	seconds := float64(profileSeconds)
	if asked := r.FormValue("seconds"); asked != "" {
		var err error
		if seconds, err = strconv.ParseFloat(asked, 64); err != nil || !(seconds > 0 && seconds <= ProfileSecondsMax) {
			http.Error(w, fmt.Sprintf("seconds: %q is no number of seconds above 0 and up to %d", asked, ProfileSecondsMax), http.StatusBadRequest)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds*float64(time.Second)))
	defer cancel()
	taken, err := s.pipeline.TakeProfile(ctx.Done(), r.FormValue("client"))
	if errors.Is(err, pipeline.ErrProfiling) {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="pipeline.pb.gz"`)
	out := encodeProfile(taken)
	if r.FormValue("table") != "" {
		out.Comments = profileRows(taken)
	}
	_ = out.Write(w) // an error is the client's going
}

// encodeProfile lays a pipeline profile out for pprof.
func encodeProfile(taken *pipeline.Profile) *profile.Profile {
	out := &profile.Profile{
		SampleType:        []*profile.ValueType{{Type: "requests", Unit: "count"}, {Type: "time", Unit: "nanoseconds"}},
		DefaultSampleType: "time",
		TimeNanos:         time.Now().Add(-taken.Took).UnixNano(),
		DurationNanos:     int64(taken.Took),
		PeriodType:        &profile.ValueType{Type: "requests", Unit: "count"},
		Period:            1,
	}
	locations := map[string]*profile.Location{}
	at := func(name string) *profile.Location {
		l := locations[name]
		if l == nil {
			f := &profile.Function{ID: uint64(len(out.Function)) + 1, Name: name, SystemName: name}
			l = &profile.Location{ID: f.ID, Line: []profile.Line{{Function: f}}}
			out.Function, out.Location = append(out.Function, f), append(out.Location, l)
			locations[name] = l
		}
		return l
	}
	for i := range taken.Samples {
		s := &taken.Samples[i]
		out.Sample = append(out.Sample, &profile.Sample{
			Location: []*profile.Location{at(s.Stage.String()), at("level " + s.LevelName())},
			Value:    []int64{s.Requests, int64(s.Time)},
			Label:    map[string][]string{"client_id": {s.ClientID}, "topic": {s.Topic}, "level": {s.LevelName()}},
		})
	}
	return out
}

func profileRows(taken *pipeline.Profile) []string {
	var rows []string
	for i := range taken.Table {
		row := &taken.Table[i]
		b, err := json.Marshal(ProfileRow{Level: row.LevelName(), Stage: row.Stage.String(), Requests: row.Requests, Time: row.Time, P50: row.P50, P99: row.P99})
		if err == nil { // plain numbers and strings
			rows = append(rows, string(b))
		}
	}
	return rows
}

// ProfileRows takes the rows out of a profile that was fetched.
func ProfileRows(p *profile.Profile) ([]ProfileRow, error) {
	rows := make([]ProfileRow, len(p.Comments))
	for i, c := range p.Comments {
		if err := json.Unmarshal([]byte(c), &rows[i]); err != nil {
			return nil, fmt.Errorf("comment %d is no row of a pipeline profile: %w", i, err)
		}
	}
	return rows, nil
}
