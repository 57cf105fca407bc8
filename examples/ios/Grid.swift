// Where output pixels lie between input pixels, in integers: scaleport/grid.py in Swift.
// examples/grid_vectors.json holds what it must give; GridCheck.swift compares.

import Foundation

/// Output length of an axis of `n` pixels: halves are rounded up, also those of decimal scales.
func outputLength(_ n: Int, _ scale: Double) -> Int {
    precondition(n >= 1 && scale > 0 && scale.isFinite)
    return max(1, Int((Double(n) * scale * (1 + 1e-12) + 0.5).rounded(.down)))
}

/// Output samples `start ..< stop` of an axis of `n` input and `length` output samples.
///
/// `origin` is the input sample that counts as 0: the first one of a crop.
struct Axis {
    /// The whole part of each position, -1 above the first sample.
    let index: [Int32]
    /// The rest of each position, in 0 ..< 1.
    let offset: [Float]
    let scale: Float

    init(n: Int, length: Int, start: Int, stop: Int, origin: Int = 0) {
        precondition(n >= 1 && 0 <= start && start < stop && stop <= length)
        // A fraction close to 1 must not become 1: index and offset belong together.
        let largest = Float(1).nextDown
        let twice = 2 * length
        var whole: [Int32] = []
        var rest: [Float] = []
        for a in start..<stop {
            // u = ((2a + 1) n - N) / 2N, split before anything becomes a float.
            let position = (2 * a + 1) * n - length
            let remainder = ((position % twice) + twice) % twice
            whole.append(Int32((position - remainder) / twice - origin))
            rest.append(min(Float(Double(remainder) / Double(twice)), largest))
        }
        (index, offset) = (whole, rest)
        scale = Float(Double(length) / Double(n))
    }
}
