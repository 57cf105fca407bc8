// Compares Grid.swift with examples/grid_vectors.json:
// swiftc Grid.swift GridCheck.swift -o check && ./check ../grid_vectors.json

import Foundation

@main
struct GridCheck {
    static func main() throws {
        let file = URL(fileURLWithPath: CommandLine.arguments[1])
        let vectors = try JSONDecoder().decode([String: [[Double]]].self, from: Data(contentsOf: file))
        var wrong = 0
        for row in vectors["sizes"]! where outputLength(Int(row[0]), row[1]) != Int(row[2]) {
            wrong += 1
        }
        for row in vectors["axes"]!.map({ $0.map { Int($0) } }) {
            let axis = Axis(n: row[0], length: row[1], start: row[2], stop: row[3], origin: row[4])
            let bits = axis.offset.map { Int(Int32(bitPattern: $0.bitPattern)) }
            if Array(row[5...]) != axis.index.map({ Int($0) }) + bits { wrong += 1 }
        }
        print("\(vectors["sizes"]!.count + vectors["axes"]!.count) cases, \(wrong) wrong")
        exit(wrong == 0 ? 0 : 1)
    }
}
