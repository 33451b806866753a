package server

import (
	"github.com/rs/zerolog"

	"tidemark/pipeline"
)

// LogEvents turns the pipeline's typed events into log lines. The stages know no logger. Slow requests go to flight if there is one.
func LogEvents(log zerolog.Logger, flight *Flight) func(pipeline.Event) {
	reads := log.Sample(&zerolog.BurstSampler{Burst: 5, Period: 1e9})
	return func(e pipeline.Event) {
		switch e := e.(type) {
		case pipeline.SegmentReady:
			log.Debug().Int64("end_offset", int64(e.End)).Msg("segment ready")
		case pipeline.SegmentsDropped:
			log.Info().Int64("first_offset", int64(e.First)).Msg("retention dropped segments")
		case pipeline.UpkeepFailed:
			log.Error().Err(e.Err).Bool("refusing_appends", e.Refusing).Msg("journal upkeep failed; it is tried again")
		case pipeline.UpkeepResumed:
			log.Info().Msg("journal upkeep works again")
		case pipeline.ReadMismatch:
			reads.Error().Err(e.Err).Int64("segment", int64(e.Err.Segment)).Int64("offset", int64(e.Err.Offset)).Msg("journal does not hold what its index says; run tidemark journal verify")
		case pipeline.ReadFailed:
			reads.Error().Err(e.Err).Str("topic", e.Partition.Topic).Int32("partition", e.Partition.Index).Msg("journal cannot be read; the client is told to try again")
		case pipeline.IndexRebuilt:
			log.Warn().AnErr("cause", e.Cause).Int64("segment", int64(e.Segment)).Msg("index of a segment was made anew")
		case pipeline.PolicyChanged:
			if e.Policy == nil {
				log.Info().Str("policy", e.Name).Msg("policy taken away")
			} else {
				log.Info().Str("policy", e.Name).Str("for", e.Policy.Match()).Strs("says", e.Policy.Said()).Msg("policy set")
			}
		case pipeline.SlowRequest:
			if flight != nil {
				flight.Slow(e)
			} else {
				logSlow(log, e).Msg("slow request")
			}
		case pipeline.Failed:
			log.Error().Err(e.Err).Msg("disk failed; nothing is acknowledged any more")
		}
	}
}

// GnetQuiet drops gnet's own log lines: its errors come back from Run and OnClose.
type GnetQuiet struct{}

func (GnetQuiet) Debugf(string, ...any) {}
func (GnetQuiet) Infof(string, ...any)  {}
func (GnetQuiet) Warnf(string, ...any)  {}
func (GnetQuiet) Errorf(string, ...any) {}
func (GnetQuiet) Fatalf(string, ...any) {}
