package main

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// plotDecades is how many nines the picture reaches: 99.999 %.
const plotDecades = 5

// plot draws the latencies' percentiles, as HdrHistogram's plotter does: evenly in the number of nines.
func (r *benchReport) plot(path string) error {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s, %d connections × %d in flight, %.0f requests/s", r.QoS, r.Connections, r.InFlight, r.RequestsPerS)
	p.X.Label.Text, p.Y.Label.Text = "percentile", "ms"
	p.Y.Min = 0
	ticks := make(plot.ConstantTicks, 0, plotDecades+1)
	for nines := range plotDecades + 1 {
		label := "0"
		if nines > 0 {
			label = fmt.Sprintf("%.*f", max(nines-2, 0), 100-100/math.Pow10(nines))
		}
		ticks = append(ticks, plot.Tick{Value: float64(nines), Label: label})
	}
	p.X.Tick.Marker = ticks
	p.Add(plotter.NewGrid())
	lines := []any{"acknowledged", percentiles(r.latencies.histogram)}
	if r.EndToEnd != nil {
		lines = append(lines, "consumed", percentiles(r.EndToEnd.histogram))
	}
	if err := plotutil.AddLines(p, lines...); err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	p.Legend.Top, p.Legend.Left = true, true
	if err := p.Save(20*vg.Centimeter, 12*vg.Centimeter, path); err != nil {
		return fmt.Errorf("--plot %s: %w", path, err)
	}
	return nil
}

// percentiles are points of (nines, ms).
func percentiles(h *hdrhistogram.Histogram) plotter.XYs {
	const steps = 20 // a decade
	var points plotter.XYs
	for i := range plotDecades*steps + 1 {
		nines := float64(i) / steps
		points = append(points, plotter.XY{X: nines, Y: float64(h.ValueAtQuantile(100-100/math.Pow(10, nines))) / 1e3})
	}
	return points
}

// checkPlot refuses what the picture cannot be, before anything is measured.
func checkPlot(path string) error {
	if path != "" && !strings.EqualFold(filepath.Ext(path), ".svg") {
		return usageErrorf("--plot: %q, must end in .svg", path)
	}
	return nil
}
