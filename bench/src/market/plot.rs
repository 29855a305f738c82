//! What do the curves look like?
//!
//! Plain SVG, written by hand: two plots, spend against the traffic and multipliers over the day.

use super::report::{Curve, Report};
use std::fmt::Write as _;
use std::path::Path;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 480.0;
const MARGIN: f64 = 48.0;

/// Writes every plot of a report.
pub fn write(folder: &Path, report: &Report) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let spend = plot("Spend by budget; the target is dashed", report, |curve| curve.spent.clone());
    let multiplier = |curve: &Curve| curve.multiplier_ppm.iter().map(|ppm| f64::from(*ppm) / 1e6).collect();
    let multipliers = plot("Pacing multipliers; the traffic so far is dashed", report, multiplier);
    std::fs::write(folder.join("spend.svg"), spend)?;
    std::fs::write(folder.join("multipliers.svg"), multipliers)
}

fn plot(title: &str, report: &Report, values: impl Fn(&Curve) -> Vec<f64>) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\">{title} ({} arrivals, {}, {} campaigns)</text>\n",
        report.arrivals,
        report.mechanism,
        report.curves.len()
    );
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let days = report.period_days * report.periods;
        let when = if days == 1 { format!("{}:00", tick * 6) } else { format!("day {:.0}", share * days as f64) };
        let (x, y) = (place(share, 0.0).0, place(0.0, share).1);
        let _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"8\" y=\"{y:.1}\">{share:.2}</text><text x=\"{x:.1}\" y=\"{:.1}\">{when}</text>",
            WIDTH - MARGIN,
            HEIGHT - 18.0
        );
    }
    for (number, curve) in report.curves.iter().enumerate() {
        let hue = number * 360 / report.curves.len().max(1);
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"hsl({hue},70%,45%)\" stroke-width=\"1\" points=\"{}\"><title>campaign {} ({})</title></polyline>",
            points(&values(curve)),
            curve.campaign,
            curve.bid_type
        );
    }
    let target = points(&report.target);
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"black\" stroke-width=\"2\" stroke-dasharray=\"6 4\" points=\"{target}\"/>\n</svg>"
    );
    svg
}

/// Shares of the day and of the height on the paper.
fn place(x: f64, y: f64) -> (f64, f64) {
    (MARGIN + x * (WIDTH - 2.0 * MARGIN), HEIGHT - MARGIN - y.clamp(0.0, 1.0) * (HEIGHT - 2.0 * MARGIN))
}

fn points(values: &[f64]) -> String {
    let mut out = String::new();
    for (number, value) in values.iter().enumerate() {
        let (x, y) = place((number + 1) as f64 / values.len() as f64, *value);
        let _ = write!(out, "{x:.1},{y:.1} ");
    }
    out
}
