// Super-resolution at any scale on Android with ONNX Runtime: encode a picture once, then render any
// region at any scale. Takes encode.onnx and render.onnx of a bundle of a query network, such as
// scaleport-any.bundle/onnx/fp32, and needs com.microsoft.onnxruntime:onnxruntime-android.

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import android.graphics.Bitmap
import java.nio.FloatBuffer
import java.nio.IntBuffer
import kotlin.math.roundToInt

class Upscaler(encode: ByteArray, render: ByteArray) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val encoder = environment.createSession(encode, OrtSession.SessionOptions())
    private val decoder = environment.createSession(render, OrtSession.SessionOptions())

    /** Opens a picture: the encoder runs once. Large pictures are for tiles, see README.md. */
    fun open(picture: Bitmap): View {
        val (width, height) = picture.width to picture.height
        val pixels = IntArray(width * height)
        picture.getPixels(pixels, 0, width, 0, 0, width, height)
        val planes = FloatBuffer.allocate(3 * width * height)
        for (shift in intArrayOf(16, 8, 0)) {
            for (pixel in pixels) planes.put(((pixel shr shift) and 255) / 255f)
        }
        planes.rewind()
        val shape = longArrayOf(1, 3, height.toLong(), width.toLong())
        OnnxTensor.createTensor(environment, planes, shape).use { image ->
            return View(height, width, encoder.run(mapOf("image" to image)))
        }
    }

    override fun close() {
        decoder.close()
        encoder.close()
    }

    inner class View(
        private val height: Int,
        private val width: Int,
        private val features: OrtSession.Result
    ) : AutoCloseable {
        /** Height and width of the whole picture at a scale. */
        fun size(scale: Double) = outputLength(height, scale) to outputLength(width, scale)

        /** Pixels [top] until [bottom], [left] until [right] of the picture at a scale. */
        fun render(scale: Double, top: Int, left: Int, bottom: Int, right: Int): Bitmap {
            val (outHeight, outWidth) = size(scale)
            val rows = Axis(height, outHeight, top, bottom)
            val cols = Axis(width, outWidth, left, right)
            val grid = mapOf(
                "row_index" to ints(rows.index), "row_offset" to floats(rows.offset),
                "col_index" to ints(cols.index), "col_offset" to floats(cols.offset),
                "scale" to floats(floatArrayOf(rows.scale, cols.scale))
            ).filterKeys { it in decoder.inputNames }
            try {
                val made = features.associate { it.key to it.value as OnnxTensor }
                decoder.run(made + grid).use { result ->
                    return bitmap((result[0] as OnnxTensor).floatBuffer, bottom - top, right - left)
                }
            } finally {
                grid.values.forEach { it.close() }
            }
        }

        override fun close() = features.close()
    }

    private fun ints(values: IntArray) =
        OnnxTensor.createTensor(environment, IntBuffer.wrap(values), longArrayOf(values.size.toLong()))

    private fun floats(values: FloatArray) =
        OnnxTensor.createTensor(environment, FloatBuffer.wrap(values), longArrayOf(values.size.toLong()))

    private fun bitmap(planes: FloatBuffer, height: Int, width: Int): Bitmap {
        val area = height * width
        fun channel(plane: Int, i: Int) = (planes.get(plane * area + i) * 255f).coerceIn(0f, 255f).roundToInt()
        val pixels = IntArray(area) { i ->
            (255 shl 24) or (channel(0, i) shl 16) or (channel(1, i) shl 8) or channel(2, i)
        }
        return Bitmap.createBitmap(pixels, width, height, Bitmap.Config.ARGB_8888)
    }
}
