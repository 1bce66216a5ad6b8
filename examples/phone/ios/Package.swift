// swift-tools-version:5.9
// `HidenseekCore` is plain Swift; `HidenseekPhone` runs the programs and talks MQTT. `swift test` checks the core.
import PackageDescription

let package = Package(
    name: "Hidenseek",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "HidenseekCore", targets: ["HidenseekCore"]),
        .library(name: "HidenseekPhone", targets: ["HidenseekPhone"]),
    ],
    dependencies: [
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.0"),
        .package(url: "https://github.com/emqx/CocoaMQTT.git", exact: "2.4.1"),
    ],
    targets: [
        .target(name: "HidenseekCore"),
        .target(
            name: "HidenseekPhone",
            dependencies: [
                "HidenseekCore",
                .product(name: "executorch", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
                .product(name: "CocoaMQTT", package: "CocoaMQTT"),
                .product(name: "CocoaMQTTWebSocket", package: "CocoaMQTT"),
            ]
        ),
        .testTarget(name: "HidenseekCoreTests", dependencies: ["HidenseekCore"]),
    ]
)
