//! What did a controller of the literature answer, round by round?
//!
//! The PID actuator in a published run of 40 rounds (Zhang et al., WSDM 2016; rtbcontrol, README, campaign 1458 of iPinYou), for
//! whoever compares ours with it: the tests here, and the simulator.

/// Cost of a click in each round.
pub const ECPC: [f64; 40] = [
    54062.0, 54230.3333, 40755.25, 51294.75, 51399.75, 51478.0, 51557.25, 51574.75, 51626.0, 51692.75, 51809.0,
    51882.5, 41629.4, 43198.4, 43286.2, 43337.6, 43408.8, 43477.0, 43581.4, 36385.5, 49287.1429, 49311.4286,
    49376.1429, 49387.5714, 49407.2857, 49461.4286, 49508.4286, 43407.25, 43491.25, 43528.375, 43551.625, 38747.3333,
    43250.1111, 38951.5, 35326.5, 34818.25, 39457.0588, 39675.2353, 40023.9412, 40259.4706,
];
/// What the controller answered, to four digits.
pub const PHI: [f64; 40] = [
    0.0, -2.0, -2.0, 0.9408, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0, 0.0756, -1.8943, -1.7934, -1.8188,
    -1.8597, -1.897, -1.9564, 2.3752, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0, -1.3143, -1.9783, -1.9957, -2.0,
    0.8766, -2.0, 0.7218, 2.4716, 2.4192, -0.4143, -0.081, -0.2685,
];
/// The cost of a click that it was to keep.
pub const REFERENCE: f64 = 40_000.0;
