// Where output pixels lie between input pixels, in integers: scaleport/grid.py in Kotlin.
// examples/grid_vectors.json holds what it must give; GridCheck.kt compares.

import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/** Output length of an axis of [n] pixels: halves are rounded up, also those of decimal scales. */
fun outputLength(n: Int, scale: Double): Int {
    require(n >= 1 && scale > 0 && scale.isFinite()) { "no output of $n pixels at $scale" }
    return max(1, floor(n * scale * (1 + 1e-12) + 0.5).toInt())
}

/**
 * Output samples [start] until [stop] of an axis of [n] input and [length] output samples.
 *
 * [origin] is the input sample that counts as 0: the first one of a crop.
 */
class Axis(val n: Int, val length: Int, val start: Int, val stop: Int, val origin: Int = 0) {
    /** The whole part of each position, -1 above the first sample. */
    val index = IntArray(stop - start)

    /** The rest of each position, in [0, 1). */
    val offset = FloatArray(stop - start)

    init {
        require(n >= 1 && start in 0 until stop && stop <= length) { "no such axis" }
        val twice = 2L * length
        for (i in index.indices) {
            // u = ((2a + 1) n - N) / 2N, split before anything becomes a float.
            val position = (2L * (start + i) + 1) * n - length
            index[i] = (Math.floorDiv(position, twice) - origin).toInt()
            val rest = (Math.floorMod(position, twice).toDouble() / twice).toFloat()
            offset[i] = min(rest, LARGEST)
        }
    }

    val scale: Float get() = (length.toDouble() / n).toFloat()

    private companion object {
        // A fraction close to 1 must not become 1: index and offset belong together.
        const val LARGEST = 1f - 1f / (1 shl 24)
    }
}
