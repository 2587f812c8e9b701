// swift-tools-version:5.9

import PackageDescription

let package = Package(
    name: "DigitReader",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "DigitReader", targets: ["DigitReader"])],
    targets: [
        .target(name: "DigitReader", resources: [.copy("Resources/DigitReader.mlmodel")]),
        .testTarget(name: "DigitReaderTests", dependencies: ["DigitReader"]),
    ]
)
