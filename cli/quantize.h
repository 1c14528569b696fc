// qlora quantize and qlora dequantize.
#pragma once

namespace CLI {
class App;
}

void add_quantize_command(CLI::App& app);
void add_dequantize_command(CLI::App& app);
