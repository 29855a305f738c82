//! What is `e^x`, and what is made of it?
//!
//! Our own, because the system's are a call for each value and differ between systems: Cephes' reductions and
//! polynomials (S. L. Moshier), written without branches so that the compiler makes vectors of them.

/// `e^x` with a relative error below 2e-7; infinity above 88.38, 0 below -87.3, NaN for NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and taking this away rounds to the nearest integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.336_54, 88.376_26);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = y * scale;
    let y = if x > 88.376_26 { f32::INFINITY } else { y };
    let y = if x < -87.336_54 { 0.0 } else { y };
    if x.is_nan() { x } else { y }
}

/// The natural logarithm with a relative error below 2e-7: -infinity for 0, NaN below.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Numbers below the normal ones are scaled up.
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits();
    // Mantissa in [sqrt(1/2), sqrt(2)): what is subtracted is the bits of sqrt(1/2).
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted as i32 >> 23) as f32 - if tiny { 23.0 } else { 0.0 };
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let z = m * m;
    let p = 7.037_683_6e-2;
    let p = p * m - 1.151_461e-1;
    let p = p * m + 1.167_699_8e-1;
    let p = p * m - 1.242_014_1e-1;
    let p = p * m + 1.424_932_3e-1;
    let p = p * m - 1.666_805_7e-1;
    let p = p * m + 2.000_071_4e-1;
    let p = p * m - 2.499_999_3e-1;
    let p = p * m + 3.333_333e-1;
    let y = p * m * z + exponent * LN2_LOW - 0.5 * z;
    let y = m + y + exponent * LN2_HIGH;
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// `ln(1 + x)` for x in [0, 1], without the loss of what `1 + x` rounds away.
#[inline(always)]
pub(super) fn ln_1p(x: f32) -> f32 {
    let u = 1.0 + x;
    ln(u) + (x - (u - 1.0)) / u
}

/// The hyperbolic tangent, relative error below 3e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let z = x.abs();
    let far = (1.0 - 2.0 / (exp(2.0 * z) + 1.0)).copysign(x);
    let s = x * x;
    let p = -5.704_988_5e-3;
    let p = p * s + 2.063_909e-2;
    let p = p * s - 5.373_971_4e-2;
    let p = p * s + 1.333_144_2e-1;
    let p = p * s - 3.333_328e-1;
    let near = p * s * x + x;
    let y = if z > 0.625 { far } else { near };
    if x.is_nan() { x } else { y }
}

/// `e^x - 1` for x up to 0, relative error below 1e-6: `2t / (1 - t)` of `t = tanh(x / 2)`.
#[inline(always)]
pub(super) fn exp_m1(x: f32) -> f32 {
    let t = tanh(0.5 * x);
    2.0 * t / (1.0 - t)
}

/// The error function, absolute error below 4e-7: Cephes' polynomial below 1, Abramowitz and Stegun 7.1.26 above.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    let far = (1.0 - p * exp(-z * z)).copysign(x);
    let s = x * x;
    let p = 7.853_861e-5;
    let p = p * s - 8.010_193_6e-4;
    let p = p * s + 5.188_327_7e-3;
    let p = p * s - 2.685_381_2e-2;
    let p = p * s + 1.128_358_5e-1;
    let p = p * s - 3.761_262_6e-1;
    let p = p * s + std::f32::consts::FRAC_2_SQRT_PI;
    let y = if z > 1.0 { far } else { p * x };
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_two_in_ten_million() {
        let mut x = -87.0f32;
        while x < 88.3 {
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "{x}: {} {exact}", exp(x));
            x += 0.013_7;
        }
        assert_eq!((exp(0.0), exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (1.0, f32::INFINITY, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_error_function() {
        for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_9), (-1.0, -0.842_700_8), (3.0, 0.999_977_9)] {
            assert!((erf(x) - y).abs() < 1e-6);
        }
    }
}
