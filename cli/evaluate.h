// qlora evaluate.
#pragma once

namespace CLI {
class App;
}

void add_evaluate_command(CLI::App& app);
