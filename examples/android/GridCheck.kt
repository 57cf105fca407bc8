// Compares Grid.kt with examples/grid_vectors.json: kotlinc Grid.kt GridCheck.kt -include-runtime
// -d check.jar && java -jar check.jar ../grid_vectors.json

import java.io.File
import kotlin.system.exitProcess

fun main(arguments: Array<String>) {
    var kind = ""
    var checked = 0
    var wrong = 0
    for (line in File(arguments[0]).readLines()) {
        if (line.contains("\"sizes\"")) kind = "sizes"
        if (line.contains("\"axes\"")) kind = "axes"
        if (!line.contains(']') || !line.contains(',') || line.contains(':')) continue
        val numbers = line.filter { it !in "[] " }.trim(',').split(',').filter { it.isNotEmpty() }
        if (numbers.size < 3) continue
        checked++
        val right = if (kind == "sizes") {
            outputLength(numbers[0].toInt(), numbers[1].toDouble()) == numbers[2].toInt()
        } else {
            val given = numbers.map { it.toInt() }
            val axis = Axis(given[0], given[1], given[2], given[3], given[4])
            given.drop(5) == axis.index.toList() + axis.offset.map { it.toRawBits() }
        }
        if (!right) {
            wrong++
            println("wrong: $line")
        }
    }
    println("$checked cases, $wrong wrong")
    exitProcess(if (wrong == 0 && checked > 0) 0 else 1)
}
