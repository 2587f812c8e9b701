// Checks one .mlmodel after the other. Standard input: for each model its length (8 bytes,
// little-endian) and its bytes. Standard output: for each model the length of a message
// (8 bytes; 0: accepted) and the message.
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>

#include "Model.hpp"
#include "Result.hpp"

static std::string verdict(const std::string& bytes) {
    try {
        std::istringstream stream(bytes);
        CoreML::Model model;
        CoreML::Result result = CoreML::Model::load(stream, model);
        if (result.good()) return "";
        return result.message().empty() ? "refused" : result.message();
    } catch (const std::exception& error) {
        return std::string("exception: ") + error.what();
    } catch (...) {
        return "exception";
    }
}

int main() {
    std::uint64_t length;
    while (std::cin.read(reinterpret_cast<char*>(&length), sizeof length)) {
        std::string bytes(length, '\0');
        if (!std::cin.read(&bytes[0], static_cast<std::streamsize>(length))) return 1;
        const std::string message = verdict(bytes);
        length = message.size();
        std::cout.write(reinterpret_cast<const char*>(&length), sizeof length);
        std::cout << message << std::flush;
    }
    return 0;
}
