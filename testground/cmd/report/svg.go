package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// Sizes of a plot, in pixels.
const (
	width, height            = 640, 360
	left, right, top, bottom = 60, 150, 30, 45
)

// colours of the series, told apart also by those who see no red or green
// (Okabe and Ito).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"}

// plot is a plot of a few series.
type plot struct {
	title, x, y    string
	logX, fromZero bool
	all            []series
}

// series is one line of a plot, or points.
type series struct {
	name         string
	at           [][2]float64
	dots, dashed bool
}

// cdf adds the distribution of sorted values, as steps.
func (p *plot) cdf(name string, values []float64) {
	s := series{name: name}
	for i, v := range values {
		n := float64(len(values))
		s.at = append(s.at, [2]float64{v, float64(i) / n}, [2]float64{v, float64(i+1) / n})
	}
	p.all = append(p.all, s)
}

func (p *plot) points(name string, at [][2]float64) {
	p.all = append(p.all, series{name: name, at: at, dots: true})
}
func (p *plot) line(name string, at [][2]float64) {
	p.all = append(p.all, series{name: name, at: at, dashed: true})
}
func (p *plot) vertical(name string, x float64) { p.line(name, [][2]float64{{x, 0}, {x, 1}}) }

// scale maps values to pixels.
type scale struct {
	from, to   float64 // of the values
	low, high  float64 // of the pixels
	logarithms bool
}

func (s scale) at(v float64) float64 {
	from, to := s.from, s.to
	if s.logarithms {
		from, to, v = math.Log10(from), math.Log10(to), math.Log10(max(v, s.from))
	}
	return s.low + (v-from)/(to-from)*(s.high-s.low)
}

// ticks are values to write beside the axis.
func (s scale) ticks() []float64 {
	var out []float64
	if s.logarithms {
		for v := math.Pow(10, math.Ceil(math.Log10(s.from)-1e-9)); v <= s.to*1.0001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10((s.to-s.from)/2)))
	for (s.to-s.from)/step > 6 {
		step *= 2
	}
	for i := 0; s.from+float64(i)*step <= s.to*1.0001; i++ {
		out = append(out, s.from+float64(i)*step)
	}
	return out
}

// scales fits both axes to the series. Time and shares begin at zero, unless
// the axis is logarithmic.
func (p *plot) scales() (x, y scale) {
	x = scale{low: left, high: width - right, logarithms: p.logX}
	y = scale{low: height - bottom, high: top, to: 1}
	least := math.Inf(1)
	for _, s := range p.all {
		for _, at := range s.at {
			x.to, y.to = max(x.to, at[0]), max(y.to, at[1])
			if at[0] > 0 {
				least = min(least, at[0])
			}
		}
	}
	if x.to == 0 {
		x.to = 1
	}
	if p.fromZero {
		y.to *= 1.2
	}
	if p.logX {
		x.from = math.Pow(10, math.Floor(math.Log10(min(least, x.to))))
		x.to = max(math.Pow(10, math.Ceil(math.Log10(x.to))), x.from*10)
	}
	return x, y
}

// svg draws the plot.
func (p *plot) svg() []byte {
	var b bytes.Buffer
	x, y := p.scales()
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(&b, left, top-12, "start", p.title)
	text(&b, (left+width-right)/2, height-8, "middle", p.x)
	fmt.Fprintf(&b, `<text transform="translate(14,%d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+height-bottom)/2, html.EscapeString(p.y))
	for _, v := range x.ticks() {
		fmt.Fprintf(&b, `<path d="M%.1f %dV%d" stroke="#ddd"/>`+"\n", x.at(v), top, height-bottom)
		text(&b, x.at(v), height-bottom+16, "middle", number(v))
	}
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/>`+"\n", left, y.at(v), width-right)
		text(&b, left-6, y.at(v)+4, "end", number(v))
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" stroke="black" fill="none"/>`+"\n", left, top, height-bottom, width-right)
	for i, s := range p.all {
		s.draw(&b, x, y, colours[i%len(colours)], i)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// draw draws a series and its entry in the legend.
func (s series) draw(b *bytes.Buffer, x, y scale, colour string, i int) {
	if s.dots {
		for _, at := range s.at {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", x.at(at[0]), y.at(at[1]), colour)
		}
	} else if len(s.at) > 0 {
		var d bytes.Buffer
		for j, at := range s.at {
			c := 'L'
			if j == 0 {
				c = 'M'
			}
			fmt.Fprintf(&d, "%c%.1f %.1f", c, x.at(at[0]), y.at(at[1]))
		}
		dash := ""
		if s.dashed {
			dash = ` stroke-dasharray="5 4"`
		}
		fmt.Fprintf(b, `<path d="%s" stroke="%s" stroke-width="2" fill="none"%s/>`+"\n", d.String(), colour, dash)
	}
	at := float64(top + 14 + 18*i)
	fmt.Fprintf(b, `<path d="M%d %.1fh16" stroke="%s" stroke-width="3"/>`+"\n", width-right+10, at-4, colour)
	text(b, width-right+30, at, "start", s.name)
}

func text(b *bytes.Buffer, x, y float64, anchor, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
}
