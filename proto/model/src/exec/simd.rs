//! Which vector instructions does this processor have, and how does one body become code for each of them?
//!
//! The crate is compiled for the oldest processor of its architecture, so that one binary runs everywhere. What is
//! worth it is compiled a second time for AVX2 and FMA, by [`simd!`], and the processor is asked once. The body is
//! the same: Rust neither reorders nor contracts f32 operations, so both give the same bits.

/// The instructions that kernels are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the architecture has.
    Portable,
    /// 8 f32 at once with fused multiplication and addition, on x86-64.
    Avx2,
}

impl Isa {
    /// The best of this processor. The answer is kept by the standard library: this is a load and a branch.
    #[inline]
    #[must_use]
    pub fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return Self::Avx2;
        }
        Self::Portable
    }
}

/// Defines a function whose body is compiled for each [`Isa`], and chosen at run time.
macro_rules! simd {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) {
                    body($($arg),*);
                }
                if $crate::exec::simd::Isa::detected() == $crate::exec::simd::Isa::Avx2 {
                    // SAFETY: the processor has AVX2 and FMA, as was just asked.
                    unsafe { avx2($($arg),*) };
                    return;
                }
            }
            body($($arg),*);
        }
    };
}
pub(crate) use simd;
