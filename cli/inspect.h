// qlora inspect: what lies at a path, or (inspect data) what a recipe makes of its rows.
#pragma once

namespace CLI {
class App;
}

void add_inspect_command(CLI::App& app);
