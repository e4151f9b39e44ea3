//! Logarithmic axes: where a value lies, and which values are marked. The plot calls it; it draws nothing.

/// An axis from one place of the drawing to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Logarithms of the values at the two ends.
    ends: (f64, f64),
    /// Places of the two ends.
    places: (f64, f64),
}

impl Axis {
    /// An axis on which `low` and `high` lie at the two `places`. Equal values get some room on both sides.
    pub(super) fn new(low: f64, high: f64, places: (f64, f64)) -> Self {
        let (low, high) = (low.log10(), high.log10());
        let ends = if high - low < 1e-9 { (low - 0.5, high + 0.5) } else { (low, high) };
        Self { ends, places }
    }

    /// Where `value` lies; values beyond the ends lie at the ends.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - self.ends.0) / (self.ends.1 - self.ends.0);
        let share = share.clamp(0.0, 1.0);
        // A tenth of a pixel is enough, and keeps the file small.
        ((self.places.0 + share * (self.places.1 - self.places.0)) * 10.0).round() / 10.0
    }

    /// The values to mark: powers of ten, or also 2 and 5 times them where there are few.
    pub(super) fn marks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.ends.1 - self.ends.0 < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = self.ends.0.floor() as i32..=self.ends.1.ceil() as i32;
        let values = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        let inside = |value: &f64| {
            let place = value.log10();
            place >= self.ends.0 - 1e-9 && place <= self.ends.1 + 1e-9
        };
        values.filter(inside).collect()
    }
}

/// The values 1, 2 or 5 times a power of ten that lie at or below `low` and at or above `high`.
pub(super) fn round_ends(low: f64, high: f64) -> (f64, f64) {
    let power = |value: f64| 10f64.powi(value.log10().floor() as i32);
    let steps = [1.0, 2.0, 5.0, 10.0];
    let (under, over) = (power(low), power(high));
    let low_end = steps.iter().rev().map(|step| step * under).find(|end| *end <= low * 1.000_001);
    let high_end = steps.iter().map(|step| step * over).find(|end| *end >= high * 0.999_999);
    (low_end.unwrap_or(under), high_end.unwrap_or(10.0 * over))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_factors_are_equal_distances() {
        let axis = Axis::new(1.0, 10_000.0, (0.0, 400.0));
        let places: Vec<f64> = [1.0, 10.0, 100.0, 1000.0, 10_000.0].iter().map(|v| axis.place(*v)).collect();
        assert_eq!(places, [0.0, 100.0, 200.0, 300.0, 400.0]);
        assert_eq!(Axis::new(1.0, 100.0, (400.0, 0.0)).place(10.0), 200.0, "upwards");
        assert_eq!(Axis::new(7.0, 7.0, (0.0, 400.0)).place(7.0), 200.0, "one value alone");
    }

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(Axis::new(1.0, 1000.0, (0.0, 1.0)).marks(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(Axis::new(5.0, 50.0, (0.0, 1.0)).marks(), [5.0, 10.0, 20.0, 50.0]);
    }

    #[test]
    fn ends_are_rounded_outwards() {
        assert_eq!(round_ends(61.0, 4100.0), (50.0, 5000.0));
        assert_eq!(round_ends(100.0, 200.0), (100.0, 200.0));
        assert_eq!(round_ends(0.3, 0.9), (0.2, 1.0));
    }
}
